"""Keys of inputs as arrays: two integers for each key of 16 bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 18  # number of keys that are looked up together
Keys = NDArray[np.uint64]  # of N inputs, shape (N, 2); the bytes of a row are the key


def key_array(keys: Sequence[bytes]) -> Keys:
    """Return keys as an array.

    Args:
        keys: N keys, 16 bytes each.

    Returns:
        Keys, shape (N, 2), uint64.

    Example:
        >>> key_array([bytes(16), bytes(15) + b"a"]).shape
        (2, 2)
    """
    return np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)


def first_occurrences(keys: Keys) -> NDArray[np.int64]:
    """Return the index of each different key's first occurrence, ascending.

    Args:
        keys: Keys of N inputs, shape (N, 2).

    Example:
        >>> first_occurrences(key_array([b"b" * 16, b"a" * 16, b"b" * 16])).tolist()
        [0, 1]
    """
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable, so that the first of equal keys stays the first
    ordered = keys[order]
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(1)
    return np.sort(order[is_first])


def search(first: NDArray[np.uint64], second: NDArray[np.uint64], keys: Keys) -> NDArray[np.int64]:
    """Find keys in a sorted list.

    Args:
        first: First integers of the K keys of the list, ascending, shape (K,).
        second: Second integers of the same keys, shape (K,).
        keys: Keys to find, shape (N, 2).

    Returns:
        Index of each key in the list, shape (N,), int64; -1 for a key that is not in it.
    """
    found = np.full(len(keys), -1, dtype=np.int64)
    for start in range(0, len(keys), BLOCK):  # so that the arrays of the search stay small
        block = slice(start, start + BLOCK)
        _search(first, second, keys[block], found[block])
    return found


def _search(first: NDArray[np.uint64], second: NDArray[np.uint64], keys: Keys, found: NDArray[np.int64]) -> None:
    """Write the index of each key into ``found``, where a key is in the list."""
    order = np.argsort(keys[:, 0])  # Neighbours in a large list are found faster one after the other.
    wanted = keys[order]
    at = np.searchsorted(first, wanted[:, 0])
    pending = np.arange(len(keys))
    while pending.size:  # Keys are hashes, so hardly any two have the same first integer.
        pending = pending[at[pending] < len(first)]
        pending = pending[first[at[pending]] == wanted[pending, 0]]
        same = second[at[pending]] == wanted[pending, 1]
        found[order[pending[same]]] = at[pending[same]]
        pending = pending[~same]
        at[pending] += 1
