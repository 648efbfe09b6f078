"""The classes of many rows as arrays of numbers: four bytes for each label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 18  # rows that are handled together, since all of them would need several times the memory


@dataclass(frozen=True, eq=False)
class ClassIndices:
    """The class indices of N rows, one after the other (compressed sparse rows).

    Attributes:
        flat: Class indices of all rows, shape (L,), int32, at least 0. A row has each class at most once.
        offsets: Position in ``flat`` where each row starts, and the end of the last one, shape (N + 1,), int32 or
            int64; None if each row has exactly one class.

    Example:
        >>> ClassIndices.of([[0], [2, 1], []]).flat.tolist()
        [0, 2, 1]
    """

    flat: NDArray[np.int32]
    offsets: NDArray[Any] | None = None

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> ClassIndices:
        """Return the class indices of rows that are given as lists."""
        rows = list(rows)
        flat = np.array([index for row in rows for index in row], dtype=np.int32)
        return cls.from_counts(flat, np.array([len(row) for row in rows], dtype=np.int64))

    @classmethod
    def from_counts(cls, flat: NDArray[np.int32], counts: NDArray[np.integer]) -> ClassIndices:
        """Return class indices from those of all rows and the number of classes of each row, shape (N,)."""
        if len(flat) == len(counts) and (counts == 1).all():
            return cls(flat)
        offsets: NDArray[Any] = np.zeros(len(counts) + 1, dtype=np.int32 if len(flat) < 2**31 else np.int64)
        np.cumsum(counts, out=offsets[1:])
        return cls(flat, offsets)

    def __len__(self) -> int:
        return len(self.flat) if self.offsets is None else len(self.offsets) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Return the number of classes of each row, shape (N,), int64."""
        if self.offsets is None:
            return np.ones(len(self), dtype=np.int64)
        return np.diff(self.offsets).astype(np.int64)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Return the row of each entry of ``flat``, shape (L,), int64."""
        return np.repeat(np.arange(len(self)), self.counts)

    def row(self, row: int) -> list[int]:
        """Return the class indices of one row."""
        if self.offsets is None:
            return [int(self.flat[row])]
        indices: list[int] = self.flat[self.offsets[row] : self.offsets[row + 1]].tolist()
        return indices

    def select(self, rows: NDArray[np.integer]) -> ClassIndices:
        """Return the class indices of some rows.

        Args:
            rows: Row numbers, in any order, shape (M,).
        """
        if self.offsets is None:
            return ClassIndices(self.flat[rows])
        counts = self.offsets[rows + 1] - self.offsets[rows]
        flat, filled = np.empty(counts.sum(), dtype=np.int32), 0
        for start in range(0, len(rows), CHUNK):
            part = counts[start : start + CHUNK]
            # Position of each entry: that of its row, and its place in the row.
            firsts = self.offsets[rows[start : start + CHUNK]] - (np.cumsum(part) - part)
            places = np.repeat(firsts, part) + np.arange(part.sum())
            flat[filled : filled + len(places)] = self.flat[places]
            filled += len(places)
        return ClassIndices.from_counts(flat, counts)

    def sizes(self, classes: int = 0) -> NDArray[np.int64]:
        """Return the number of rows of each class, up to the largest, for at least a number of classes."""
        sizes = np.zeros(max(classes, int(self.flat.max(initial=-1)) + 1), dtype=np.int64)
        for start in range(0, len(self.flat), CHUNK):
            sizes += np.bincount(self.flat[start : start + CHUNK], minlength=len(sizes))
        return sizes

    def recoded(self, numbers: NDArray[np.int32]) -> ClassIndices:
        """Return the class indices with ``numbers[index]`` in place of each index."""
        flat = np.empty_like(self.flat)
        for start in range(0, len(flat), CHUNK):  # NumPy would make a copy of all indices with 8 bytes each.
            flat[start : start + CHUNK] = numbers[self.flat[start : start + CHUNK]]
        return ClassIndices(flat, self.offsets)

    def to_lists(self) -> list[list[int]]:
        """Return the class indices of each row as lists, for small data.

        Example:
            >>> ClassIndices.of([[0], [1, 0], []]).to_lists()
            [[0], [1, 0], []]
        """
        return [self.row(row) for row in range(len(self))]


def by_first_appearance(classes: ClassIndices) -> ClassIndices:
    """Number the classes again, in the order of their first appearance.

    Example:
        >>> by_first_appearance(ClassIndices.of([[7], [2, 7], []])).to_lists()
        [[0], [1, 0], []]
    """
    flat, size = classes.flat, int(classes.flat.max(initial=-1)) + 1
    first = np.full(size, len(flat), dtype=np.int64)
    for start in reversed(range(0, len(flat), CHUNK)):
        places = np.arange(start, min(start + CHUNK, len(flat)))[::-1]
        first[flat[places]] = places  # of repeated indices, the last one assigns
    numbers = np.empty(size, dtype=np.int32)
    numbers[np.argsort(first, kind="stable")] = np.arange(size, dtype=np.int32)
    return classes if (numbers == np.arange(size)).all() else classes.recoded(numbers)


def rows_by_class(classes: ClassIndices, order: NDArray[np.integer] | None = None) -> list[NDArray[np.integer]]:
    """Return the rows of each class, from 0 to the largest.

    Args:
        classes: Class indices of N rows.
        order: Permutation of the rows, in which those of a class are returned; by default they are ascending.

    Example:
        >>> [rows.tolist() for rows in rows_by_class(ClassIndices.of([[0], [1, 0], []]))]
        [[0, 1], [1]]
    """
    sizes = classes.sizes()
    ends = np.cumsum(sizes)
    members = np.empty(len(classes.flat), dtype=np.int32 if len(classes) < 2**31 else np.int64)
    filled = ends - sizes  # where the next row of each class goes
    for start in range(0, len(classes), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(classes))) if order is None else order[start : start + CHUNK]
        part = classes.select(rows)
        by_class = np.argsort(part.flat, kind="stable")
        found = part.flat[by_class]
        members[filled[found] + rank_among_equals(found)] = rows[part.rows[by_class]]
        filled += np.bincount(found, minlength=len(sizes))
    return np.split(members, ends[:-1]) if len(sizes) else []


def rank_among_equals(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return how many equal values stand before each of some sorted values, shape (N,), int64.

    Example:
        >>> rank_among_equals(np.array([4, 4, 7, 9, 9])).tolist()
        [0, 1, 0, 0, 1]
    """
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))
