"""A modality whose features are already cached."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robusttune.data.cache.index import ABSENT
from robusttune.data.images import UnreadableImageError
from robusttune.data.modalities import Inputs, Modality, RawModality


class FeatureStore(Protocol):
    """A store of features in files or in memory: a `Store` or a `MemoryStore`."""

    @property
    def most_bytes(self) -> int:
        """Return the greatest number of bytes of one input's features in a batch."""

    def gather(self, locations: list[int]) -> Inputs:
        """Return the features at some locations, in this order, and pad the tokens to the longest of each layer."""


class CachedModality(Modality):
    """A modality whose features are read from the cache, in place of its images or texts.

    Args:
        raw: Modality before its encoder.
        store: Store of the features.
        locations: Locations of the features in the store, shape (rows, views), int64; `ABSENT` for an absent or
            unreadable input.
    """

    def __init__(self, raw: RawModality, store: FeatureStore, locations: NDArray[np.int64]) -> None:
        self.raw = raw
        self.views = locations.shape[1]
        self.store = store
        self.locations = locations

    def __len__(self) -> int:
        return len(self.locations)

    def has(self, row: int) -> bool:
        """Return whether the sample in this row has the modality."""
        return self.raw.has(row)

    def present_rows(self) -> NDArray[np.bool_]:
        """Return which rows have the modality, shape (N,), bool."""
        return self.raw.present_rows()

    def read(self, row: int, epoch: int) -> int:
        """Return the location of a row's features in the store.

        Args:
            row: Row of a sample that has the modality.
            epoch: Epoch, from 0, which selects the random view.

        Raises:
            UnreadableImageError: The image could not be read when the features were computed.
        """
        location = int(self.locations[row, self.view(epoch)])
        if location == ABSENT:
            self.raw.read(row, epoch)  # raises the error with the reason, if the image is still unreadable
            raise UnreadableImageError(f"the image of row {row} could not be read when its features were computed")
        return location

    def collate(self, values: list[int]) -> Inputs:
        """Read the features at P locations, zero or more, and pad them to the longest."""
        return self.store.gather(values)

    @property
    def most_bytes(self) -> int:
        """Return the greatest number of bytes of one sample's features in a batch."""
        return self.store.most_bytes
