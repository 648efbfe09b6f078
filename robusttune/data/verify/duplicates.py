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


class Shared(NamedTuple):
    """What two splits have in common.

    Attributes:
        first, second: the splits.
        ids: of a row of the first, and of the same in the second, for each of the second's.
    """

    first: str
    second: str
    ids: list[tuple[str, str]]


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
            found.append(Shared(first, second, pairs))
    return found


def near(hashes: NDArray[np.uint64], distance: int) -> Iterator[tuple[int, int]]:
    """Pairs of places whose hashes differ in at most so many bits, each pair once.

    Of ``distance`` + 1 parts of a hash at least one is the same in both, so only such are compared.

    Args:
        hashes: (N,), all different.
        distance: bits; the time that it takes grows fast with them.
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
    for place, row in enumerate(bucket.tolist(), 1):
        others = bucket[place:]
        bits = ONES[(hashes[others] ^ hashes[row])[:, None].view(np.uint8)].sum(axis=1, dtype=np.int64)
        for other in others[bits <= distance].tolist():
            yield (row, other) if row < other else (other, row)
