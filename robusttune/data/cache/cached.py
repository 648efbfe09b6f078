"""A side of which an encoder has made everything already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robusttune.data.cache.store import ABSENT, Store
from robusttune.data.images import UnreadableImageError
from robusttune.data.modalities import Inputs, Modality, RawModality


class Cached(Modality):
    """Features in the place of what they were made of.

    Args:
        raw: what they were made of.
        store: that has them.
        places: (rows, views) where they are in the store.
    """

    def __init__(self, raw: RawModality, store: Store, places: NDArray[np.int64]) -> None:
        self.raw = raw
        self.views = places.shape[1]
        self.store = store
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def has(self, row: int) -> bool:
        return self.raw.has(row)

    def read(self, row: int, epoch: int) -> int:
        place = int(self.places[row, self.view(epoch)])
        if place == ABSENT:
            self.raw.read(row, epoch)  # says why it could not be read
            raise UnreadableImageError(f"the image of row {row} could not be read when its features were computed")
        return place

    def collate(self, values: list[int]) -> Inputs:
        return self.store.gather(values)

    @property
    def most_bytes(self) -> int:
        return self.store.most_bytes
