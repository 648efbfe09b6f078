"""The features of one encoder in a folder of shards, read by location."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from robusttune.data.cache.digests import state_of
from robusttune.data.cache.index import ROW, Index, IndexedShard
from robusttune.data.cache.shard import Shard, read_features
from robusttune.data.cache.shard_folder import ShardFolder
from robusttune.data.modalities import Inputs
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded, Widths

OPEN = 256  # maximum number of open files


class Store(ShardFolder):
    """A folder of shards whose features can be read; see `ShardFolder` for the arguments."""

    def __init__(self, folder: Path, fingerprint: str, widths: Widths) -> None:
        super().__init__(folder, fingerprint, widths)
        self._files: dict[int, BinaryIO] = {}

    def gather(self, locations: list[int]) -> Inputs:
        """Read the features at some locations, in this order, and pad the tokens to the longest input of each layer.

        Args:
            locations: Results of `locations`, none of them `ABSENT`.

        Raises:
            RobustTuneError: A shard was changed since it was compared with its checksums, and is damaged.
        """
        places = np.array(locations, dtype=np.int64)
        shards = places >> 32
        rows = self.index.starts[shards] + (places & ROW)
        counts = [column[rows] for column in self.index.counts]
        dtype = self.index.dtype
        pooled = np.empty((len(rows), self.widths.pooled), dtype)
        tokens = [
            np.zeros((len(rows), int(column.max(initial=0)), width), dtype)
            for column, width in zip(counts, self.widths.layers, strict=True)
        ]
        each = zip(shards.tolist(), self.index.positions[rows].tolist(), *(c.tolist() for c in counts), strict=True)
        for i, (number, position, *lengths) in enumerate(each):
            parts = [pooled[i], *(padded[i, :count] for padded, count in zip(tokens, lengths, strict=True))]
            if not read_features(self._file(number), position, parts):
                raise self._changed(number)
        masks = [np.arange(padded.shape[1]) < column[:, None] for padded, column in zip(tokens, counts, strict=True)]
        encoded = Encoded(_as_torch(pooled), [_as_torch(t) for t in tokens], [torch.from_numpy(m) for m in masks])
        return Inputs(encoded, (self.index.cut[rows] != 0).tolist())

    @property
    def most_bytes(self) -> int:
        """Return the greatest number of bytes of a requested input's features in a batch, with padding.

        The shards with requested inputs are considered; the result is 0 without such shards.
        """
        if self.longest is None:
            return 0
        size = np.dtype(self.index.dtype).itemsize
        longest = self.longest.tolist()
        tokens = sum(count * (width * size + 1) for count, width in zip(longest, self.widths.layers, strict=True))
        return self.widths.pooled * size + int(tokens)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without open files and mapped arrays: the process that unpickles it opens them again."""
        index: Any = self.index.shards if self.index.is_mapped else self.index
        return self.__dict__ | {"_files": {}, "index": index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        index: Any = state["index"]
        if not isinstance(index, Index):
            self.index = self.mapped(index) or self._index_of(index)

    def _index_of(self, shards: list[IndexedShard]) -> Index:
        """Return the index of these shards in this order, from the shards themselves."""
        read = [(shard, Shard.read(self.folder / shard.name, self.fingerprint, self.widths)) for shard in shards]
        return Index.of(read, len(self.widths.layers))

    def _file(self, number: int) -> BinaryIO:
        """Return the open file of a shard; the file that was opened first is closed if there are too many."""
        if number not in self._files:
            if len(self._files) == OPEN:
                self._files.pop(next(iter(self._files))).close()
            self._files[number] = self._opened(number)
        return self._files[number]

    def _opened(self, number: int) -> BinaryIO:
        """Open the file of a shard. If it has changed since it was checked, check it again.

        Another job may have computed the same shard and replaced the file.

        Raises:
            RobustTuneError: The shard is gone or damaged.
        """
        indexed = self.index.shards[number]
        path = self.folder / indexed.name
        if state_of(path) != indexed.stat:
            shard = self.intact(path, remove=True, verify=True)
            start = int(self.index.starts[number])
            if shard is None or not np.array_equal(shard.positions, self.index.positions[start : start + indexed.rows]):
                raise self._changed(number)
        return path.open("rb", buffering=0)

    def _changed(self, number: int) -> RobustTuneError:
        """Return the error for a shard that is not what it was when it was checked."""
        path = self.folder / self.index.shards[number].name
        return RobustTuneError(
            f"{path} of the feature cache was changed while it was read: start again, and it is checked and, if "
            "necessary, computed anew"
        )


def _as_torch(array: NDArray[Any]) -> torch.Tensor:
    """Return a tensor that shares the array's memory; uint16 arrays hold the bits of bfloat16 numbers."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor
