"""Search for repeated ids in memory that does not grow with the table: hashes are compared first, then the ids."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

AT_ONCE = 1 << 23  # hashes that are in memory at a time
WORD = 8  # bytes
FACTORS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], dtype=np.uint64)  # of splitmix64


def repeated(ids: pa.ChunkedArray) -> list[tuple[int, int]]:
    """Return the rows of ids that an earlier row has, each with the row of the first.

    Args:
        ids: Ids of all rows, none of them null.

    Example:
        >>> repeated(pa.chunked_array([["a", "b"], ["c", "b"]]))
        [(3, 1)]
    """
    parts = -(-len(ids) // AT_ONCE)
    twice = [_twice(np.concatenate([_of_part(h, part, parts) for h in _all_hashes(ids)])) for part in range(parts)]
    suspects = np.concatenate(twice) if twice else np.empty(0, np.uint64)
    if not len(suspects):
        return []
    first: dict[str, int] = {}
    found, start = [], 0
    for chunk, hashes in zip(ids.chunks, _all_hashes(ids), strict=True):
        for row in np.flatnonzero(np.isin(hashes, suspects)).tolist():
            earlier = first.setdefault(chunk[row].as_py(), start + row)
            if earlier != start + row:
                found.append((start + row, earlier))
        start += len(chunk)
    return found


def hashes_of(texts: pa.Array) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each text; equal texts have equal hashes.

    Args:
        texts: Array of strings, none of them null.

    Returns:
        Hashes, shape (N,).

    Example:
        >>> one, other = hashes_of(pa.array(["soup", "soup"]))
        >>> bool(one == other)
        True
    """
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    content = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.empty(0, np.uint8)
    padded = np.concatenate([content, np.zeros(WORD, np.uint8)])
    # A view of the eight bytes from each position on.
    words = np.ndarray((len(padded) - WORD + 1,), "<u8", padded, strides=(1,))
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    hashes = lengths.astype(np.uint64)
    rows = np.arange(len(texts))
    for position in range(0, int(lengths.max(initial=0)), WORD):
        rows = rows[lengths[rows] > position]
        left = np.minimum(lengths[rows] - position, WORD).astype(np.uint64)
        mask = np.uint64(2**64 - 1) >> (np.uint64(8) * (np.uint64(WORD) - left))
        hashes[rows] = _mixed(hashes[rows] ^ (words[starts[rows] + position] & mask))
    return hashes


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of each value, without loss."""
    values = (values + FACTORS[0]) * FACTORS[1]
    values ^= values >> np.uint64(29)
    values *= FACTORS[0]
    return values ^ (values >> np.uint64(32))


def _all_hashes(ids: pa.ChunkedArray) -> Iterator[NDArray[np.uint64]]:
    return map(hashes_of, ids.chunks)


def _of_part(hashes: NDArray[np.uint64], part: int, parts: int) -> NDArray[np.uint64]:
    return hashes if parts == 1 else hashes[hashes % np.uint64(parts) == part]


def _twice(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the hashes that occur more than once, each once."""
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
