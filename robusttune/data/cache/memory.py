"""Features that are kept in memory, on the device of the run, in place of those in files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from robusttune.data.cache.cached import CachedModality
from robusttune.data.cache.index import ABSENT
from robusttune.data.cache.store import Store
from robusttune.data.modalities import Inputs
from robusttune.types import Encoded

LIMIT = 1 << 30  # most bytes of features that each process keeps in memory


class MemoryStore:
    """The features at some locations of a store, in memory.

    `gather` returns what the store would return, bit by bit, but on the device of the features.

    Args:
        store: Store to read the features from, once.
        locations: Locations in the store, see `Store.locations`, none of them `ABSENT`. Their positions in this list
            are the locations of `gather`.
        device: Device that holds the features.
    """

    def __init__(self, store: Store, locations: list[int], device: torch.device) -> None:
        inputs = store.gather(locations)
        assert isinstance(inputs.values, Encoded)
        self.features = inputs.values.map(lambda tensor: tensor.to(device))
        self.cut = inputs.cut
        counts = [mask.sum(1).numpy() for mask in inputs.values.mask]
        self.counts = np.array(counts, dtype=np.int64).reshape(len(counts), len(locations)).T  # tokens of each layer
        self.most_bytes = store.most_bytes

    def gather(self, locations: list[int]) -> Inputs:
        """Return the features at some locations, in this order, with tokens padded to the longest of each layer."""
        longest = self.counts[locations].max(0, initial=0).tolist()
        rows = torch.tensor(locations, dtype=torch.int64).to(self.features.pooled.device, non_blocking=True)
        tokens, mask = (
            [part[:, :count].index_select(0, rows) for part, count in zip(parts, longest, strict=True)]
            for parts in (self.features.tokens, self.features.mask)
        )
        encoded = Encoded(self.features.pooled.index_select(0, rows), tokens, mask)
        return Inputs(encoded, [self.cut[location] for location in locations])


def keep_in_memory(modalities: Sequence[CachedModality], device: torch.device, limit: int = LIMIT) -> None:
    """Read the features of modalities into memory if they take at most ``limit`` bytes together, else change nothing.

    Modalities of one store, such as an image and its noisy variants, share one store in memory, too, because a batch
    reads all variants from the store of the clean one.

    Args:
        modalities: All modalities of a run, which are changed in place. Loaders need all of them in one place.
        device: Device that the features are kept on.
        limit: Most bytes, with padding.
    """
    of_store: dict[int, list[CachedModality]] = {}
    for modality in modalities:
        of_store.setdefault(id(modality.store), []).append(modality)
    used = {key: np.unique(np.concatenate([each.locations.ravel() for each in own])) for key, own in of_store.items()}
    used = {key: locations[locations != ABSENT] for key, locations in used.items()}
    if sum(len(used[key]) * own[0].most_bytes for key, own in of_store.items()) > limit:
        return
    for key, own in of_store.items():
        store = own[0].store
        assert isinstance(store, Store)
        in_memory = MemoryStore(store, used[key].tolist(), device)
        for each in own:
            positions = np.searchsorted(used[key], each.locations)
            each.store, each.locations = in_memory, np.where(each.locations == ABSENT, ABSENT, positions)
