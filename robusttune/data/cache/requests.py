"""The inputs whose features are requested, as arrays, and as a data set that reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robusttune.data.cache.keys import Keys, key_array
from robusttune.data.modalities import RawModality

BLOCK = 1 << 16  # number of inputs whose keys or lengths are computed together


class Request(NamedTuple):
    """An input whose features are requested.

    Attributes:
        modality: Modality that reads the input.
        row: Row of the sample.
        view: Index of the random view.
    """

    modality: RawModality
    row: int
    view: int


@dataclass(frozen=True)
class Requests:
    """All inputs of some modalities: each view of each row that has an input, one modality after the other.

    Attributes:
        modalities: Modalities of one encoder, each with a limited number of views.
        rows: Rows with an input, ascending, for each modality.
        keys: Key of each of the R inputs, shape (R, 2); zeros for an unreadable one.
        readable: Flag of each input, False for an unreadable one, shape (R,), bool.
    """

    modalities: Sequence[RawModality]
    rows: list[NDArray[np.int64]]
    keys: Keys
    readable: NDArray[np.bool_]

    @classmethod
    def of(cls, modalities: Sequence[RawModality], digests: Mapping[str, bytes | None]) -> Requests:
        """Return the inputs of some modalities.

        Args:
            modalities: Modalities of one encoder, each with a limited number of views.
            digests: Digests of the image files by path; None for an unreadable file.
        """
        rows = [np.flatnonzero(modality.present_rows()) for modality in modalities]
        sizes = [len(own) * (modality.views or 0) for own, modality in zip(rows, modalities, strict=True)]
        keys, readable = np.zeros((sum(sizes), 2), np.uint64), np.ones(sum(sizes), dtype=bool)
        requests = cls(modalities, rows, keys, readable)
        for modality, at, pairs in requests.blocks(np.arange(len(keys))):
            found = modality.keys(pairs, digests)
            readable[at] = [key is not None for key in found]
            keys[at[readable[at]]] = key_array([key for key in found if key is not None])
        return requests

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Request:
        part, row, view = (each.item() for each in self._where(np.array(number)))
        return Request(self.modalities[part], row, view)

    def only(self, numbers: NDArray[np.int64]) -> Requests:
        """Return the same inputs, of which only those with these numbers are to be computed."""
        return replace(self, readable=np.isin(np.arange(len(self)), numbers) & self.readable)

    def rows_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each of the inputs with these numbers."""
        return self._where(numbers)[1]

    def lengths(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of tokens of each text with these numbers; 0 for each image."""
        found = np.zeros(len(numbers), dtype=np.int64)
        for modality, at, pairs in self.blocks(numbers):
            found[at] = modality.lengths(pairs)
        return found

    def blocks(
        self, numbers: NDArray[np.int64]
    ) -> Iterator[tuple[RawModality, NDArray[np.int64], list[tuple[int, int]]]]:
        """Yield the inputs with these numbers in blocks of one modality.

        A block has the modality, the indices of its inputs in ``numbers``, and their pairs (row, view).
        """
        for start in range(0, len(numbers), BLOCK):
            parts, rows, views = self._where(numbers[start : start + BLOCK])
            for part in np.unique(parts).tolist():
                own = np.flatnonzero(parts == part)
                pairs = list(zip(rows[own].tolist(), views[own].tolist(), strict=True))
                yield self.modalities[part], start + own, pairs

    def by_modality(self, values: NDArray[np.int64], fill: int) -> list[NDArray[np.int64]]:
        """Return a value of each input as an array of shape (rows, views) for each modality.

        Args:
            values: Value of each input, shape (R,).
            fill: Value of the rows that have no input.
        """
        found = []
        for modality, rows, part in zip(self.modalities, self.rows, np.split(values, self._ends[:-1]), strict=True):
            array = np.full((len(modality), modality.views or 0), fill)
            array[rows] = part.reshape(len(rows), array.shape[1])
            found.append(array)
        return found

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Return the number of inputs up to the end of each modality."""
        sizes = [len(own) * (modality.views or 0) for own, modality in zip(self.rows, self.modalities, strict=True)]
        return np.cumsum(sizes, dtype=np.int64)

    def _where(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of the modality, the row and the view of inputs."""
        parts = np.searchsorted(self._ends, numbers, side="right")
        rows, views = np.zeros_like(numbers), np.zeros_like(numbers)
        starts = [0, *self._ends[:-1].tolist()]
        for part in np.unique(parts).tolist():
            own = parts == part
            index, views[own] = np.divmod(numbers[own] - starts[part], self.modalities[part].views or 1)
            rows[own] = self.rows[part][index]
        return parts, rows, views
