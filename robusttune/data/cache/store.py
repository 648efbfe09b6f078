"""A store of the features of one encoder: a folder of shards with an index by the inputs' keys."""

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

OPEN = 256  # maximum number of open files
ABSENT = -1  # location of an input without features


class Store:
    """A folder of shards with the features of one encoder.

    Args:
        folder: Folder of the shards. It does not have to exist.
        fingerprint: Fingerprint of the encoder and the settings that the features depend on.
        widths: Widths of the encoder's outputs.

    Attributes:
        shards: Indices of the shards with requested inputs.
    """

    def __init__(self, folder: Path, fingerprint: str, widths: Widths) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.widths = widths
        self.shards: list[Shard] = []
        self._locations: dict[bytes, tuple[int, int]] = {}
        self._known: set[Path] = set()
        self._files: dict[int, BinaryIO] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._locations

    def refresh(self, requested: set[bytes], threads: int) -> None:
        """Add the new shards of the folder that have requested inputs, after a check; remove damaged shards.

        Args:
            requested: Keys of the requested inputs.
            threads: Number of threads that check shards.
        """
        new = sorted(path for path in self.folder.glob(f"*{SUFFIX}") if path not in self._known)
        with ThreadPoolExecutor(threads) as pool:
            for path, shard in zip(new, pool.map(lambda path: self._read(path, requested), new), strict=True):
                if shard is None:
                    continue  # a shard that is computed again gets the same name
                self._known.add(path)
                if not requested.isdisjoint(shard.keys):
                    self._locations |= {key: (len(self.shards), row) for row, key in enumerate(shard.keys)}
                    self.shards.append(shard)

    def locations(self, keys: Iterable[bytes | None]) -> NDArray[np.int64]:
        """Return the location of each key for `gather`: the shard's number times 2^32, plus the row in the shard.

        Args:
            keys: Keys of N inputs; None for an input without a key.

        Returns:
            Locations, shape (N,), int64; `ABSENT` for an input without features.
        """
        found = (None if key is None else self._locations.get(key) for key in keys)
        return np.array([ABSENT if pair is None else pair[0] << 32 | pair[1] for pair in found], dtype=np.int64)

    def gather(self, locations: list[int]) -> Inputs:
        """Read the features at some locations, in this order, and pad the tokens to the longest input of each layer.

        Args:
            locations: Results of `locations`, none of them `ABSENT`.
        """
        pairs = [(location >> 32, location & 0xFFFFFFFF) for location in locations]
        counts = np.array([self.shards[number].counts[row] for number, row in pairs], dtype=np.int64)
        counts = counts.reshape(len(pairs), len(self.widths.layers))
        dtype = self.shards[0].dtype if self.shards else "<f4"
        pooled = np.empty((len(pairs), self.widths.pooled), dtype)
        tokens = [
            np.zeros((len(pairs), int(column.max(initial=0)), width), dtype)
            for column, width in zip(counts.T, self.widths.layers, strict=True)
        ]
        for i, (number, row) in enumerate(pairs):
            parts = [padded[i, :count] for padded, count in zip(tokens, counts[i].tolist(), strict=True)]
            self.shards[number].read_into(self._file(number), row, [pooled[i], *parts])
        masks = [np.arange(padded.shape[1]) < column[:, None] for padded, column in zip(tokens, counts.T, strict=True)]
        encoded = Encoded(_as_torch(pooled), [_as_torch(t) for t in tokens], [torch.from_numpy(m) for m in masks])
        return Inputs(encoded, [bool(self.shards[number].cut[row]) for number, row in pairs])

    @property
    def most_bytes(self) -> int:
        """Return the greatest number of bytes of one input's features in a batch, with padding; 0 without shards."""
        if not self.shards:
            return 0
        size = np.dtype(self.shards[0].dtype).itemsize
        longest = np.max([shard.counts.max(0, initial=0) for shard in self.shards], axis=0)
        tokens = sum(int(count) * (width * size + 1) for count, width in zip(longest, self.widths.layers, strict=True))
        return self.widths.pooled * size + tokens

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without open files: the process that unpickles it opens them again."""
        return self.__dict__ | {"_files": {}}

    def _file(self, number: int) -> BinaryIO:
        """Return the open file of a shard; the file that was opened first is closed if there are too many."""
        if number not in self._files:
            if len(self._files) == OPEN:
                self._files.pop(next(iter(self._files))).close()
            self._files[number] = self.shards[number].path.open("rb", buffering=0)
        return self._files[number]

    def _read(self, path: Path, requested: set[bytes]) -> Shard | None:
        """Read the index of a shard, and check the shard if it has requested inputs.

        A damaged shard is removed. The result is None if the shard is removed, by this or another process.
        """
        try:
            shard = Shard.read(path, self.fingerprint, self.widths)
            if not requested.isdisjoint(shard.keys):
                shard.verify()
        except FileNotFoundError:  # another process has removed it
            return None
        except DamagedShardError as error:
            log.warning("%s of the feature cache cannot be used (%s): it is built anew", path, error)
            path.unlink(missing_ok=True)
            return None
        return shard


def _as_torch(array: NDArray[Any]) -> torch.Tensor:
    """Return a tensor that shares the array's memory; uint16 arrays hold the bits of bfloat16 numbers."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor
