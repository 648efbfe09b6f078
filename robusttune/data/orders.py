"""The order of the samples in an epoch, as a function of positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robusttune.data.balance import Quotas
from robusttune.data.class_indices import rank_among_equals
from robusttune.data.keyed_permutation import permuted

# Up to here, an order is one of all orders with equal probability, drawn as an array of 8 MiB within some milliseconds.
# The keyed permutation of larger tables needs no array, but reaches 2^64 orders at most for each epoch.
DRAWN = 1 << 20
DRAWS, OFFSET, ROWS = range(3)  # what a key is for: the order of the draws, the quotas' rounding, the rows of a class


class Drawn(NamedTuple):
    """The samples at some positions of an epoch.

    Attributes:
        rows: Row of each sample, shape (P,), int64.
        repeats: Number of each draw among those of its row in this epoch, from 0, shape (P,), int64.
    """

    rows: NDArray[np.int64]
    repeats: NDArray[np.int64]


Order = Callable[[NDArray[np.int64]], Drawn]  # from positions in an epoch, each below the number of rows


def in_row_order(positions: NDArray[np.int64]) -> Drawn:
    """Return the samples of an epoch in the order of their rows."""
    return Drawn(positions, np.zeros_like(positions))


def shuffled(rows: int, seed: int, epoch: int) -> Order:
    """Return a random order in which each row comes once.

    Args:
        rows: Number of rows, at least 1.
        seed: Seed of the random orders.
        epoch: Epoch, from 0.

    Example:
        >>> sorted(shuffled(3, seed=0, epoch=0)(np.arange(3)).rows.tolist())
        [0, 1, 2]
    """
    if rows > DRAWN:
        return lambda positions: in_row_order(permuted(positions, rows, [seed, epoch, DRAWS]))
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return lambda positions: in_row_order(order[positions])


class Balanced:
    """The random orders of epochs in which each row is drawn according to quotas.

    Args:
        quotas: Numbers of draws of the N rows. All rows of a class have the same.
        seed: Seed of the random orders.
    """

    def __init__(self, quotas: Quotas, seed: int) -> None:
        self.quotas = quotas
        self.seed = seed
        self.rows = len(quotas.classes)
        self.by_class: NDArray[np.int64] | None = None  # rows sorted by class, made once for large tables

    def order(self, epoch: int) -> Order:
        """Return the order of an epoch, from 0."""
        if self.rows > DRAWN:
            return self._keyed(epoch)
        order = self.quotas.draw(np.random.default_rng([self.seed, epoch]))
        repeats = _earlier_occurrences(order)
        return lambda positions: Drawn(order[positions], repeats[positions])

    def _keyed(self, epoch: int) -> Order:
        """Return an order that is computed position by position.

        The draws of the epoch are numbered class by class. Within a class, whose number of draws is the floor or the
        ceiling of the expected one, they go round its rows, in an order of their own in each epoch. A draw's number is
        the keyed permutation of its position. The draws of a row are counted in the order of their numbers.
        """
        if self.by_class is None:
            self.by_class = np.argsort(self.quotas.classes, kind="stable")
            _, self.sizes = np.unique(self.quotas.classes, return_counts=True)
        by_class, sizes = self.by_class, self.sizes
        starts = np.cumsum(sizes) - sizes
        ends = np.cumsum(self.quotas.expected[by_class[starts]] * sizes)
        ends[-1] = self.rows  # without the rounding error, which could add or lose a draw
        rounding = np.random.default_rng([self.seed, epoch, OFFSET]).random()
        last = np.floor(ends + rounding).astype(np.int64)
        first = np.concatenate([[0], last[:-1]])

        def order(positions: NDArray[np.int64]) -> Drawn:
            draws = permuted(positions, self.rows, [self.seed, epoch, DRAWS])
            classes = np.searchsorted(last, draws, side="right")
            repeats, places = np.divmod(draws - first[classes], sizes[classes])
            places = permuted(places, sizes[classes], [self.seed, epoch, ROWS], tweaks=classes)
            return Drawn(by_class[starts[classes] + places], repeats)

        return order


def _earlier_occurrences(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each value how often it occurs at earlier positions, shape (N,)."""
    by_value = np.argsort(values, kind="stable")
    found = np.empty_like(values)
    found[by_value] = rank_among_equals(values[by_value])
    return found
