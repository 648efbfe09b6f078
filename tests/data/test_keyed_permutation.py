"""The keyed permutation: a bijection, and statistically a random order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from robusttune.data.keyed_permutation import permuted

SIZES = [*range(1, 40), *(2**power + d for power in (6, 8, 10, 12, 16) for d in (-1, 0, 1)), 101, 1009, 10_007, 99_991]
ROWS, BLOCKS, EPOCHS = 100_003, 32, 10


@pytest.mark.parametrize("size", SIZES)
def test_every_number_comes_once(size: int) -> None:
    for key in ([0, 0], [7, 3]):
        assert np.array_equal(np.sort(permuted(np.arange(size), size, key)), np.arange(size))


def test_any_part_is_computed_without_the_rest() -> None:
    whole = permuted(np.arange(1000), 1000, [5])
    assert permuted(np.array([999, 3, 3]), 1000, [5]).tolist() == whole[[999, 3, 3]].tolist()
    far = permuted(np.array([0, 10**12 - 1]), 10**12, [5])
    assert ((far >= 0) & (far < 10**12)).all()


def test_permutations_of_several_sizes_at_once() -> None:
    sizes = [1, 2, 7, 7, 30, 1000]
    families = np.repeat(np.arange(len(sizes)), sizes)
    numbers = np.concatenate([np.arange(size) for size in sizes])
    found = permuted(numbers, np.array(sizes)[families], [1], tweaks=families)
    parts = [found[families == family] for family in range(len(sizes))]
    assert all(np.array_equal(np.sort(part), np.arange(size)) for part, size in zip(parts, sizes, strict=True))
    assert parts[2].tolist() != parts[3].tolist()  # of the same size, each with a tweak of its own


def keyed(epoch: int) -> NDArray[np.int64]:
    return permuted(np.arange(ROWS), ROWS, [0, epoch])


def reference(epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([0, epoch]).permutation(ROWS)


def multiples(epoch: int) -> NDArray[np.int64]:
    """Return an order that no one should take for random."""
    return np.arange(ROWS) * (30_011 + epoch) % ROWS


def chi_square(counts: NDArray[np.int64], freedom: int) -> float:
    """Return how many standard deviations a chi-square statistic of equally likely cells is above its mean."""
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5


def statistics(order: Callable[[int], NDArray[np.int64]]) -> Iterator[tuple[str, float]]:
    """Yield statistics that are about standard normal for random orders, also between their epochs."""
    orders = [order(epoch) for epoch in range(EPOCHS)]
    for rows in orders:
        cells = np.arange(ROWS) * BLOCKS // ROWS * BLOCKS + rows * BLOCKS // ROWS
        yield "blocks", chi_square(np.bincount(cells, minlength=BLOCKS**2), (BLOCKS - 1) ** 2)
        for lag in (1, 2, 317):  # 317 is about sqrt(rows), the width of the Feistel network
            yield f"lag {lag}", float(np.corrcoef(rows[:-lag], rows[lag:])[0, 1]) * ROWS**0.5
        steps = np.diff(rows) % ROWS * 256 // ROWS
        yield "steps", chi_square(np.bincount(steps, minlength=256), 255)
        yield "last digits", chi_square(np.bincount((rows[:-1] % 16) * 16 + rows[1:] % 16, minlength=256), 255)
    pairs = len(orders) * (len(orders) - 1) / 2
    same = sum(int((a == b).sum()) for a, b in combinations(orders, 2))
    yield "rows at the same position", (same - pairs) / pairs**0.5  # a Poisson variable of mean 1 for each pair
    following = [np.zeros(ROWS, np.int64) for _ in orders]
    for after, rows in zip(following, orders, strict=True):
        after[rows] = np.roll(rows, -1)
    same = sum(int((a == b).sum()) for a, b in combinations(following, 2))
    yield "same successor", (same - pairs) / pairs**0.5


@pytest.mark.parametrize("order", [reference, keyed])
def test_orders_look_random(order: Callable[[int], NDArray[np.int64]]) -> None:
    assert {name: value for name, value in statistics(order) if abs(value) > 5} == {}


def test_the_statistics_find_an_order_that_is_not_random() -> None:
    assert {"blocks", "lag 1", "steps"} <= {name for name, value in statistics(multiples) if abs(value) > 5}
