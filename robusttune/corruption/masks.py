"""Masks of missing modalities: which samples of a split lack their image or their text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

CHUNK = 1 << 16  # ids that become Python strings together


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask of missing modalities over the samples of one split.

    Attributes:
        ids: Ids of the N samples.
        present: Presence of the image (column 0) and of the text (column 1) of each sample, shape (N, 2), bool.

    Example:
        >>> mask = Mask.of(["a", "b"], [[True, False], [True, True]])
        >>> mask.by_id()["a"]
        (True, False)
    """

    ids: pa.ChunkedArray
    present: NDArray[np.bool_]

    @classmethod
    def of(cls, ids: Sequence[str], present: Sequence[Sequence[bool]]) -> Mask:
        """Return the mask of a few samples."""
        return cls(as_column(ids), np.array(present, dtype=bool).reshape(-1, 2))

    @cached_property
    def hash(self) -> str:
        """Return 16 hexadecimal digits that identify the mask: a BLAKE2b hash of the sorted ids and of the entries."""
        digest = hashlib.blake2b(digest_size=8)
        for ids, present in self.sorted():
            flags = [pa.array(column.astype(np.uint8)).cast(pa.string()) for column in present.T]
            words = pc.binary_join_element_wise(_quoted(ids), *flags, " ")
            lines = pc.binary_join_element_wise(words, "\n", "").cast(pa.binary())
            digest.update(b"".join(lines.to_pylist()))
        return digest.hexdigest()

    def sorted(self) -> Iterator[tuple[pa.Array, NDArray[np.bool_]]]:
        """Yield parts of the ids and of their presence, in the order of the sorted ids."""
        order = sorted_by_id(self.ids)
        ids = self.ids.combine_chunks()
        for start in range(0, len(order), CHUNK):
            rows = order[start : start + CHUNK]
            yield ids.take(pa.array(rows)), self.present[rows]

    def by_id(self) -> dict[str, tuple[bool, bool]]:
        """Return a dictionary from sample id to (image present, text present), for small data."""
        return {
            sample_id: (image, text)
            for ids, present in self.sorted()
            for sample_id, (image, text) in zip(ids.to_pylist(), present.tolist(), strict=True)
        }


def _quoted(ids: pa.Array) -> pa.Array:
    """Return the ids as Python literals."""
    if pc.any(pc.match_substring_regex(ids, r"[^ -&(-\[\]-~]")).as_py():  # other than ASCII, or ' or a backslash
        return pa.array([repr(sample_id) for sample_id in ids.to_pylist()], pa.string())
    return pc.binary_join_element_wise("'", ids, "'", "")


def sorted_by_id(ids: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return the rows in the order of their ids, shape (N,)."""
    return np.asarray(pc.sort_indices(ids))


def as_column(ids: Sequence[str] | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ids as a column of a table."""
    return ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([pa.array(ids, pa.string())])
