"""A folder of shards with the features of one encoder, and its index, which is kept up to date."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from glob import glob
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robusttune.data.cache.digests import state_of
from robusttune.data.cache.index import ABSENT, Index, IndexedShard
from robusttune.data.cache.keys import Keys
from robusttune.data.cache.shard import SUFFIX, DamagedShardError, Shard, shard_name
from robusttune.types import Widths

log = logging.getLogger(__name__)

INDEX = "index.arrow"  # name of the index in the folder


class ShardFolder:
    """A folder of shards with the features of one encoder.

    The index of the shards is a file, too, which is mapped into memory. It is only a copy of what the shards say: it is
    made anew if it is missing or damaged, and brought up to date if shards are new, gone or changed.

    Args:
        folder: Folder of the shards. It does not have to exist.
        fingerprint: Fingerprint of the encoder and the settings that the features depend on.
        widths: Widths of the encoder's outputs.

    Attributes:
        index: Index of the shards as of the last `refresh` or `look`.
        longest: Greatest number of tokens in each layer of the shards with requested inputs, shape (M,); None without
            such shards.
    """

    def __init__(self, folder: Path, fingerprint: str, widths: Widths) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.widths = widths
        self.index = Index.of([], len(widths.layers))
        self.longest: NDArray[np.int64] | None = None
        self._is_loaded = self._is_saved = False

    def path(self, name: str) -> Path:
        """Return the path of the shard with a name, in one of 256 folders, since a folder of many files is slow."""
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def look(self, threads: int) -> None:
        """Read the index and the shards that it lacks, without changing anything in the folder.

        Shards are not compared with their checksums, and damaged ones are left out.

        Args:
            threads: Number of threads that read shards.
        """
        with ThreadPoolExecutor(threads) as pool:
            self._update(pool, remove=False)

    def refresh(self, requested: Keys, threads: int) -> NDArray[np.int64]:
        """Bring the index up to date, and compare shards with their checksums; remove damaged shards.

        A shard is compared when an input of it is requested for the first time in its life. It is compared again if the
        file has changed since. The index remembers this, see `save`.

        Args:
            requested: Keys of the N requested inputs, shape (N, 2).
            threads: Number of threads that check shards.

        Returns:
            Locations of the inputs, see `locations`.
        """
        with ThreadPoolExecutor(threads) as pool:
            self._update(pool, remove=True)
            found = self.locations(requested)
            while not self._are_intact(pool, numbers := _shards_at(found)):
                found = self.locations(requested)  # Another shard may have the same inputs.
        for number in numbers:
            longest = np.array(self.index.shards[number].longest, dtype=np.int64)
            self.longest = longest if self.longest is None else np.maximum(self.longest, longest)
        return found

    def save(self) -> None:
        """Save the index for later runs and other processes, and map it, unless the folder cannot be written."""
        if self._is_saved or not self.index.shards:
            return
        with suppress(OSError):
            self.index.save(self.folder / INDEX, self.fingerprint)
            self._is_saved = True
            self.index = self.mapped(self.index.shards) or self.index  # None if another job has replaced the file

    def locations(self, keys: Keys) -> NDArray[np.int64]:
        """Return the location of each key for `gather`, which stays valid until the index changes.

        Args:
            keys: Keys of N inputs, shape (N, 2).

        Returns:
            Locations, shape (N,), int64; `ABSENT` for an input without features.
        """
        return self.index.locations(keys)

    def mapped(self, shards: list[IndexedShard]) -> Index | None:
        """Map the index file if it has these shards in this order; otherwise return None."""
        index = Index.load(self.folder / INDEX, self.fingerprint, len(self.widths.layers))
        same = index is not None and [shard.name for shard in index.shards] == [shard.name for shard in shards]
        return replace(index, shards=shards) if index is not None and same else None

    def _update(self, pool: ThreadPoolExecutor, remove: bool) -> None:
        """Load the index, leave out shards that are gone or have changed, and add new ones."""
        if not self._is_loaded:
            index = Index.load(self.folder / INDEX, self.fingerprint, len(self.widths.layers))
            self._is_loaded, self._is_saved = True, index is not None
            self.index = index or self.index
            states = pool.map(state_of, [self.folder / shard.name for shard in self.index.shards])
            pairs = enumerate(zip(self.index.shards, states, strict=True))
            self._leave_out([number for number, (shard, state) in pairs if state is None or state != shard.stat])
        known = {shard.name for shard in self.index.shards}
        found = glob(f"**/*{SUFFIX}", root_dir=self.folder, recursive=True)  # noqa: PTH207, it is faster
        new = pool.map(lambda name: self._read(name, remove), sorted({*found} - known))
        read = [shard for shard in new if shard is not None]
        if read:
            self.index = self.index.merged(Index.of(read, len(self.widths.layers)))
            self._is_saved = False

    def _leave_out(self, numbers: list[int]) -> None:
        """Remove the shards with these numbers from the index."""
        if numbers:
            self.index = self.index.without(numbers)
            self._is_saved = False

    def _read(self, name: str, remove: bool) -> tuple[IndexedShard, Shard] | None:
        """Read the index of a new shard; return None if it cannot be used, or another process has removed it."""
        path = self.folder / name
        state = state_of(path)  # before it is read, so that a later change is noticed
        shard = self.intact(path, remove, verify=False)
        if shard is None or state is None:
            return None
        longest = shard.counts.max(0, initial=0).tolist()
        return IndexedShard(name, len(shard.keys), longest, state), shard

    def _are_intact(self, pool: ThreadPoolExecutor, numbers: list[int]) -> bool:
        """Compare shards with their checksums, if that was not done before, and return whether all are intact.

        Damaged shards are removed, which changes the numbers of the others.
        """
        shards = self.index.shards.copy()
        numbers = [number for number in numbers if not shards[number].verified]
        paths = [self.folder / shards[number].name for number in numbers]
        checked = pool.map(lambda path: self.intact(path, remove=True, verify=True), paths)
        damaged = [number for number, shard in zip(numbers, checked, strict=True) if shard is None]
        for number in numbers:
            shards[number] = replace(shards[number], verified=True)
        if numbers:
            self.index = replace(self.index, shards=shards)
            self._is_saved = False
        self._leave_out(damaged)
        return not damaged

    def intact(self, path: Path, remove: bool, verify: bool) -> Shard | None:
        """Read the index of a shard and compare the shard with its checksums if ``verify`` is set.

        The result is None if the shard is damaged, and then removed if ``remove`` is set, or if there is none.
        """
        try:
            shard = Shard.read(path, self.fingerprint, self.widths)
            if shard_name(shard.keys) != path.stem:
                raise DamagedShardError("its keys are not those of its name")
            if verify:
                shard.verify()
        except FileNotFoundError:  # another process has removed it
            return None
        except DamagedShardError as error:
            if remove:
                log.warning("%s of the feature cache cannot be used (%s): it is built anew", path, error)
                path.unlink(missing_ok=True)
            return None
        return shard


def _shards_at(locations: NDArray[np.int64]) -> list[int]:
    """Return the numbers of the shards at some locations, each once."""
    numbers = np.zeros(int(locations.max(initial=0) >> 32) + 1, dtype=bool)
    numbers[locations[locations != ABSENT] >> 32] = True
    found: list[int] = np.flatnonzero(numbers).tolist()
    return found
