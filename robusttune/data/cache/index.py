"""The index of a store: where the features of each key are, as sorted arrays that are mapped from one file."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robusttune.data.cache.digests import Stat
from robusttune.data.cache.keys import Keys, search
from robusttune.data.cache.shard import Shard
from robusttune.data.kept_files import SETTLED
from robusttune.paths import atomic_write

ABSENT = -1  # location of an input without features
ROW = (1 << 32) - 1  # bits of a location that hold the row in the shard; the others hold the shard's number


@dataclass(frozen=True)
class IndexedShard:
    """A shard in an index.

    Attributes:
        name: Path of the file, relative to the store's folder.
        rows: Number of inputs.
        longest: Greatest number of tokens of an input in each of the M layers.
        stat: State of the file when it was read; None if it may have changed since without another time of change.
        verified: Whether the file was compared with its checksums in this state.
    """

    name: str
    rows: int
    longest: list[int]
    stat: Stat | None
    verified: bool = False


@dataclass(frozen=True)
class Index:
    """The locations of K inputs in S shards, by key, and the positions of their features in the files.

    Attributes:
        shards: Shards, S of them.
        dtype: NumPy type of the features.
        first: First integer of each key, ascending, shape (K,), uint64.
        second: Second integer of each key, shape (K,), uint64.
        places: Location of each key: the shard's number times 2^32, plus the row in the shard, shape (K,), int64.
        positions: Position of each input's features in its file in bytes, shape (K,), int64, in the order of the
            shards and their rows, as are `cut` and `counts`.
        cut: Flag of each input that was cut, shape (K,), uint8.
        counts: Number of tokens of each input, M arrays of shape (K,), int32.
        is_mapped: Whether the arrays are those of a file.
    """

    shards: list[IndexedShard]
    dtype: str
    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    places: NDArray[np.int64]
    positions: NDArray[np.int64]
    cut: NDArray[np.uint8]
    counts: list[NDArray[np.int32]]
    is_mapped: bool = False

    @classmethod
    def of(cls, shards: Sequence[tuple[IndexedShard, Shard]], layers: int) -> Index:
        """Return the index of some shards.

        Args:
            shards: Descriptions and contents of the shards, zero or more.
            layers: Number M of layers.
        """
        empty = np.zeros(0, np.int64)
        parts = [shard for _, shard in shards]
        keys = np.concatenate([np.zeros((0, 2), np.uint64), *(part.keys for part in parts)])
        places = np.concatenate([empty, *((n << 32) + np.arange(len(part.keys)) for n, part in enumerate(parts))])
        order = np.argsort(keys[:, 0], kind="stable")
        counts = np.concatenate([np.zeros((0, layers), np.int32), *(part.counts for part in parts)])
        return cls(
            [indexed for indexed, _ in shards],
            parts[0].dtype if parts else "<f4",
            keys[order, 0],
            keys[order, 1],
            places[order],
            np.concatenate([empty, *(part.positions for part in parts)]),
            np.concatenate([np.zeros(0, np.uint8), *(part.cut.astype(np.uint8) for part in parts)]),
            [np.ascontiguousarray(column) for column in counts.T],
        )

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Return the number of inputs in the shards before each shard, shape (S,), int64."""
        rows = np.array([shard.rows for shard in self.shards], dtype=np.int64)
        return np.cumsum(rows) - rows

    def locations(self, keys: Keys) -> NDArray[np.int64]:
        """Return the location of each key, shape (N,), int64; `ABSENT` for a key that has none."""
        found = search(self.first, self.second, keys)
        present = found >= 0
        found[present] = self.places[found[present]]
        return np.where(present, found, ABSENT)

    def merged(self, other: Index) -> Index:
        """Return an index of these shards and of those of another index, which follow."""
        at = np.searchsorted(self.first, other.first, side="right")
        return Index(
            self.shards + other.shards,
            self.dtype if self.shards else other.dtype,
            np.insert(self.first, at, other.first),
            np.insert(self.second, at, other.second),
            np.insert(self.places, at, other.places + (len(self.shards) << 32)),
            np.concatenate([self.positions, other.positions]),
            np.concatenate([self.cut, other.cut]),
            [np.concatenate(pair) for pair in zip(self.counts, other.counts, strict=True)],
        )

    def without(self, numbers: Sequence[int]) -> Index:
        """Return an index without the shards with these numbers. The numbers of the others change."""
        kept = ~np.isin(np.arange(len(self.shards)), numbers)
        shards = self.places >> 32
        by_key, by_row = kept[shards], np.repeat(kept, [shard.rows for shard in self.shards])
        renumbered = (np.cumsum(kept) - 1)[shards[by_key]]
        return Index(
            [shard for shard, keep in zip(self.shards, kept, strict=True) if keep],
            self.dtype,
            self.first[by_key],
            self.second[by_key],
            renumbered << 32 | self.places[by_key] & ROW,
            self.positions[by_row],
            self.cut[by_row],
            [column[by_row] for column in self.counts],
        )

    def save(self, path: Path, fingerprint: str) -> None:
        """Write the index to a file, atomically.

        Args:
            path: Path of the file.
            fingerprint: Fingerprint of the store.

        Raises:
            OSError: The file cannot be written.
        """
        now = time.time_ns()
        shards = [
            replace(shard, stat=None) if shard.stat is None or now - shard.stat[2] <= SETTLED else shard
            for shard in self.shards
        ]
        about = json.dumps({"fingerprint": fingerprint, "dtype": self.dtype, "shards": [*map(asdict, shards)]})
        columns = self._columns()
        arrays = [_column(array) for array in columns.values()]
        metadata = {"about": about, "checksum": _checksum(about, columns)}
        batch = pa.RecordBatch.from_arrays(arrays, [*columns], metadata=metadata)
        with (
            atomic_write(path) as partial,
            pa.OSFile(str(partial), "wb") as file,
            pa.ipc.new_file(file, batch.schema) as written,
        ):
            written.write_batch(batch)

    @classmethod
    def load(cls, path: Path, fingerprint: str, layers: int) -> Index | None:
        """Map an index from a file.

        Args:
            path: Path of the file.
            fingerprint: Fingerprint of the store.
            layers: Number M of layers.

        Returns:
            Index, or None if there is no file, it is damaged, or it is of another store.
        """
        try:
            with pa.ipc.open_file(pa.memory_map(str(path))) as file:
                batch = file.get_batch(0)
            metadata = batch.schema.metadata
            about = metadata[b"about"].decode()
            columns = {field.name: _array(column) for field, column in zip(batch.schema, batch.columns, strict=True)}
            if metadata[b"checksum"].decode() != _checksum(about, columns):
                return None
            given = json.loads(about)
            if given["fingerprint"] != fingerprint:
                return None
            shards = [IndexedShard(**shard) for shard in given["shards"]]
            shards = [replace(shard, stat=shard.stat and tuple(shard.stat)) for shard in shards]  # type: ignore[arg-type]
            counts = [columns.pop(f"tokens {layer}") for layer in range(layers)]
            return cls(shards, given["dtype"], **columns, counts=counts, is_mapped=True)
        except (OSError, pa.ArrowException, ValueError, TypeError, KeyError, AttributeError):
            return None

    def _columns(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the index by name."""
        names = ("first", "second", "places", "positions", "cut")
        counts = {f"tokens {layer}": column for layer, column in enumerate(self.counts)}
        return {name: getattr(self, name) for name in names} | counts


# pyarrow's own conversions from and to NumPy import pandas, which takes a second and 60 MB.
def _column(array: NDArray[Any]) -> pa.Array:
    """Return a column that shares the memory of an array."""
    return pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), len(array), [None, pa.py_buffer(array)])


def _array(column: pa.Array) -> NDArray[Any]:
    """Return an array that shares the memory of a column."""
    return np.frombuffer(column.buffers()[1], column.type.to_pandas_dtype(), count=len(column))


def _checksum(about: str, columns: dict[str, NDArray[Any]]) -> str:
    """Return the checksum of an index: of its description, and of its arrays one after the other."""
    checksum = zlib.crc32(about.encode())
    for name, column in columns.items():
        checksum = zlib.crc32(column.view(np.uint8).data, zlib.crc32(name.encode(), checksum))
    return str(checksum)
