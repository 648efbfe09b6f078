"""All features that one encoder made of inputs: a folder of shards, looked up by the inputs' keys."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from robusttune.data.cache.shard import SUFFIX, DamagedShardError, Shard
from robusttune.data.modalities import Inputs
from robusttune.types import Encoded, Widths

log = logging.getLogger(__name__)

OPEN = 256  # files at a time
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
        self._files: dict[int, BinaryIO] = {}

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
        dtype = self.shards[0].dtype if self.shards else "<f4"
        pooled = np.empty((len(at), self.widths.pooled), dtype)
        tokens = [
            np.zeros((len(at), int(column.max(initial=0)), width), dtype)
            for column, width in zip(counts.T, self.widths.layers, strict=True)
        ]
        for i, (number, row) in enumerate(at):
            parts = [padded[i, :count] for padded, count in zip(tokens, counts[i].tolist(), strict=True)]
            self.shards[number].read_into(self._file(number), row, [pooled[i], *parts])
        masks = [np.arange(padded.shape[1]) < column[:, None] for padded, column in zip(tokens, counts.T, strict=True)]
        encoded = Encoded(_as_torch(pooled), [_as_torch(t) for t in tokens], [torch.from_numpy(m) for m in masks])
        return Inputs(encoded, [bool(self.shards[number].cut[row]) for number, row in at])

    @property
    def most_bytes(self) -> int:
        """Number of bytes of the features of one input, padded as the longest is."""
        if not self.shards:
            return 0
        size = np.dtype(self.shards[0].dtype).itemsize
        longest = np.max([shard.counts.max(0, initial=0) for shard in self.shards], axis=0)
        tokens = sum(int(count) * (width * size + 1) for count, width in zip(longest, self.widths.layers, strict=True))
        return self.widths.pooled * size + tokens

    def __getstate__(self) -> dict[str, Any]:
        """Files are opened again where it is unpickled."""
        return self.__dict__ | {"_files": {}}

    def _file(self, number: int) -> BinaryIO:
        if number not in self._files:
            if len(self._files) == OPEN:
                self._files.pop(next(iter(self._files))).close()
            self._files[number] = self.shards[number].path.open("rb", buffering=0)
        return self._files[number]

    def _read(self, path: Path, wanted: set[bytes]) -> Shard | None:
        """A shard, checked if any of it is wanted; None where it is no more."""
        try:
            shard = Shard.read(path, self.fingerprint, self.widths)
            if not wanted.isdisjoint(shard.keys):
                shard.verify()
        except FileNotFoundError:  # another job has removed it
            return None
        except DamagedShardError as error:
            log.warning("%s of the feature cache cannot be used (%s): it is built anew", path, error)
            path.unlink(missing_ok=True)
            return None
        return shard


def _as_torch(array: NDArray[Any]) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor
