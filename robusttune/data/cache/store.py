"""All features that one encoder made of inputs: a folder of shards, looked up by the inputs' keys."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robusttune.data.cache.shard import SUFFIX, DamagedShardError, Shard
from robusttune.data.sides import Inputs
from robusttune.types import Encoded, Widths

log = logging.getLogger(__name__)

MAPPED = 1 << 26  # bytes that are read before shards are unmapped, since what was read counts as resident memory
ABSENT = -1


class Store:
    """Features in a folder.

    Args:
        folder: of the shards; it need not exist.
        fingerprint: of the encoder and all else that decides what the features are.
        widths: of the features.
    """

    def __init__(self, folder: Path, fingerprint: str, widths: Widths) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.widths = widths
        self.shards: list[Shard] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._seen: set[Path] = set()
        self._maps: dict[int, NDArray[Any]] = {}
        self._mapped = 0

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def refresh(self, wanted: set[bytes], threads: int) -> None:
        """Take in the shards that are new in the folder and hold any input wanted, checked; remove damaged ones."""
        new = sorted(path for path in self.folder.glob(f"*{SUFFIX}") if path not in self._seen)
        with ThreadPoolExecutor(threads) as pool:
            for path, shard in zip(new, pool.map(lambda path: self._read(path, wanted), new), strict=True):
                if shard is None:
                    continue  # what is built anew has the same name
                self._seen.add(path)
                if not wanted.isdisjoint(shard.keys):
                    self._places |= {key: (len(self.shards), row) for row, key in enumerate(shard.keys)}
                    self.shards.append(shard)

    def places(self, keys: Iterable[bytes | None]) -> NDArray[np.int64]:
        """For each key a number by which `gather` finds it, or `ABSENT`."""
        found = (None if key is None else self._places.get(key) for key in keys)
        return np.array([ABSENT if at is None else at[0] << 32 | at[1] for at in found], dtype=np.int64)

    def gather(self, places: list[int]) -> Inputs:
        """The features at some places, in this order, padded to the longest of each layer."""
        at = [(place >> 32, place & 0xFFFFFFFF) for place in places]
        counts = np.array([self.shards[number].counts[row] for number, row in at], dtype=np.int64)
        counts = counts.reshape(len(at), len(self.widths.layers))
        numbers = [self._numbers(number, row) for number, row in at]
        dtype = self.shards[0].dtype if self.shards else "<f4"
        pooled = np.empty((len(at), self.widths.pooled), dtype)
        tokens = [
            np.zeros((len(at), int(column.max(initial=0)), width), dtype)
            for column, width in zip(counts.T, self.widths.layers, strict=True)
        ]
        for i, mine in enumerate(numbers):
            pooled[i], position = mine[: self.widths.pooled], self.widths.pooled
            for padded, count in zip(tokens, counts[i].tolist(), strict=True):
                end = position + count * padded.shape[2]
                padded[i, :count] = mine[position:end].reshape(count, -1)
                position = end
        del numbers
        self._unmap_at_times(pooled.nbytes + sum(padded.nbytes for padded in tokens))
        masks = [np.arange(padded.shape[1]) < column[:, None] for padded, column in zip(tokens, counts.T, strict=True)]
        encoded = Encoded(_as_torch(pooled), [_as_torch(t) for t in tokens], [torch.from_numpy(m) for m in masks])
        return Inputs(encoded, [bool(self.shards[number].cut[row]) for number, row in at])

    def __getstate__(self) -> dict[str, Any]:
        """To a loader worker goes all but the mapped memory."""
        return self.__dict__ | {"_maps": {}, "_mapped": 0}

    def _numbers(self, number: int, row: int) -> NDArray[Any]:
        if number not in self._maps:
            self._maps[number] = self.shards[number].map()
        start, end = self.shards[number].offsets[row : row + 2]
        return self._maps[number][start:end]

    def _unmap_at_times(self, read: int) -> None:
        self._mapped += read
        if self._mapped > MAPPED:
            self._maps, self._mapped = {}, 0

    def _read(self, path: Path, wanted: set[bytes]) -> Shard | None:
        """A shard, checked if any of it is wanted; None where it was damaged and is no more."""
        try:
            shard = Shard.read(path, self.fingerprint, self.widths)
            if not wanted.isdisjoint(shard.keys):
                shard.verify()
        except DamagedShardError as error:
            log.warning("%s of the feature cache cannot be used (%s): it is built anew", path, error)
            path.unlink(missing_ok=True)
            return None
        return shard


def _as_torch(array: NDArray[Any]) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor
