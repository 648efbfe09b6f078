"""The same twice: within a split, across splits, and pictures that nearly look the same."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS = 64
ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)
BLOCK = 2048  # hashes that are compared with all of a bucket at once


class Shared(NamedTuple):
    """What two splits have in common.

    Attributes:
        first, second: the splits.
        rows: how many of the second split's rows the first has, too.
        examples: ids of some such rows, of the first and of the second split.
    """

    first: str
    second: str
    rows: int
    examples: list[tuple[str, str]]


def repeats(keys: Sequence[Hashable | None]) -> int:
    """How many rows are there again; None is nothing that could be."""
    return sum(count - 1 for key, count in Counter(keys).items() if key is not None)


def shared(keys: Mapping[str, Sequence[Hashable | None]], ids: Mapping[str, Sequence[str]]) -> list[Shared]:
    """What each two splits have in common, where they have anything.

    Args:
        keys: of each split's rows; None is nothing that could be shared.
        ids: of the same rows.
    """
    found = []
    for first, second in itertools.combinations(keys, 2):
        places = dict(zip(keys[first], ids[first], strict=True))
        pairs = [
            (places[key], sample_id)
            for key, sample_id in zip(keys[second], ids[second], strict=True)
            if key is not None and key in places
        ]
        if pairs:
            found.append(Shared(first, second, len(pairs), pairs[:3]))
    return found


def near(hashes: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int]]:
    """Pairs of places whose hashes differ in at most so many bits, each pair once.

    Of ``distance`` + 1 parts of a hash at least one is the same in both, so only such are compared.

    Args:
        hashes: (N,), all different.
        distance: bits, from 0 to 16.
    """
    edges = np.linspace(0, BITS, distance + 2).round().astype(int)
    found: set[tuple[int, int]] = set()
    for start, end in itertools.pairwise(edges.tolist()):
        part = (hashes >> np.uint64(start)) & np.uint64((1 << (end - start)) - 1)
        order = np.argsort(part, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            for pair in _close(bucket, hashes, distance):
                if pair not in found:
                    found.add(pair)
                    yield pair


def _close(bucket: NDArray[np.int64], hashes: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int]]:
    for start in range(0, len(bucket), BLOCK):
        rows = bucket[start : start + BLOCK]
        for offset, row in enumerate(rows.tolist(), start):
            others = bucket[offset + 1 :]
            bits = ONES[(hashes[others] ^ hashes[row])[:, None].view(np.uint8)].sum(axis=1, dtype=np.int64)
            for other in others[bits <= distance].tolist():
                yield (row, other) if row < other else (other, row)
