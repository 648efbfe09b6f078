"""A random permutation of [0, n) as a function of a key: any part of it is computed without the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robusttune.mixing import GOLDEN, mixed

ROUNDS = 8  # of the Feistel network; from 4 on, no statistic in the tests differs from that of a random permutation


def permuted(
    numbers: NDArray[np.int64],
    sizes: int | NDArray[np.int64],
    key: Sequence[int],
    tweaks: int | NDArray[np.int64] = 0,
) -> NDArray[np.int64]:
    """Return the images of numbers under pseudo-random permutations of [0, size).

    The permutation is the generalised Feistel cipher of Black and Rogaway (2002, "Ciphers with arbitrary finite
    domains"): a number is split into a quotient and a remainder, whose ranges are about sqrt(size), and each is shifted
    in turn by a hash of the other. The few results beyond the size are permuted again until they are within it.

    Args:
        numbers: Numbers to permute, shape (P,), each in [0, size).
        sizes: Size of each number's permutation, at least 1; one for all, or shape (P,).
        key: Non-negative integers. Each key gives other permutations.
        tweaks: Non-negative number of each number's permutation, where one key gives several; one for all, or (P,).

    Returns:
        Permuted numbers, shape (P,), int64.

    Example:
        >>> sorted(permuted(np.arange(5), 5, key=[0, 1]).tolist())
        [0, 1, 2, 3, 4]
    """
    rounds = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64).astype(np.uint64)
    limits, families = (np.broadcast_to(np.asarray(each, np.uint64), numbers.shape) for each in (sizes, tweaks))
    found = _feistel(numbers.astype(np.uint64), limits, families, rounds)
    while (outside := np.flatnonzero(found >= limits)).size:
        found[outside] = _feistel(found[outside], limits[outside], families[outside], rounds)
    return found.astype(np.int64)


def _feistel(
    numbers: NDArray[np.uint64], sizes: NDArray[np.uint64], tweaks: NDArray[np.uint64], keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Return the images under a permutation of [0, width * height), which contains [0, size)."""
    width = np.ceil(np.sqrt(sizes)).astype(np.uint64)
    height = (sizes + width - np.uint64(1)) // width
    quotient, remainder = numbers // width, numbers % width
    for even, odd in keys.reshape(-1, 2):
        quotient = _shifted(quotient, _hash(remainder, tweaks, even), height)
        remainder = _shifted(remainder, _hash(quotient, tweaks, odd), width)
    return quotient * width + remainder


def _shifted(values: NDArray[np.uint64], hashes: NDArray[np.uint64], ranges: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return values of [0, range) plus random shifts, modulo the range, which is at most 2^32; without a division."""
    shifted = values + ((hashes >> np.uint64(32)) * ranges >> np.uint64(32))
    return np.where(shifted < ranges, shifted, shifted - ranges)


def _hash(values: NDArray[np.uint64], tweaks: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Return 64-bit hashes of values under a key."""
    return mixed((values + tweaks * GOLDEN) ^ key)
