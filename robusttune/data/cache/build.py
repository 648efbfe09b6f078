"""Computation of the features that a store lacks, by all ranks together, a few shards per round."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from rich.filesize import decimal

from robusttune.data.cache.index import ABSENT
from robusttune.data.cache.keys import Keys, first_occurrences, key_array
from robusttune.data.cache.loading import BATCH, ChunkBatches, RequestedInputs
from robusttune.data.cache.requests import Requests
from robusttune.data.cache.rounds import Report, Rounds
from robusttune.data.cache.shard import Row, rows_of, shard_name, write_shard
from robusttune.data.cache.store import OPEN, Store
from robusttune.data.modalities import Inputs
from robusttune.data.workers import WatchedLoader, Workers, limited_by_memory
from robusttune.encoders import FrozenEncoder
from robusttune.errors import RobustTuneError
from robusttune.interruption import ignore_signals_in_worker
from robusttune.paths import atomic_write
from robusttune.ranks import on_rank_zero, rank, world_size
from robusttune.settings import differences

log = logging.getLogger(__name__)

SHARD = 1 << 25  # approximate size of a shard in bytes, which is the most that an interruption can lose per rank
LEAST_INPUTS = 1 << 10  # a shard of so many inputs is not divided any further to share it between jobs
PREFETCH = 2  # number of batches that each worker loads ahead
PATIENCE = 60  # seconds after which a shard that one rank wrote must be visible to all ranks
LEFTOVER = 86_400  # age in seconds from which a partial file is assumed to be abandoned


class Filled(NamedTuple):
    """The features of requested inputs.

    Attributes:
        locations: Location of each input's features in the store, shape (R,), int64; `ABSENT` for an unreadable input.
        unreadable: Error messages of the unreadable images. If they stop the computation, those found before the stop.
    """

    locations: NDArray[np.int64]
    unreadable: list[str]


@dataclass
class Builder:
    """A builder that computes features and writes them to the folder of a store.

    Args:
        what: Kind of the inputs: ``images`` or ``texts``.
        store: Store to fill.
        about: Description that the store's fingerprint is a hash of, see `describe`.
        encoder: Encoder that computes the features, on its device.
        dtype: Number format of the stored features.
        precision: Function that returns the context manager of the encoder's forward pass.
        workers: Number of loader processes on this rank.
        threads: Number of threads that check shards on this rank.
        stop_at_unreadable: Whether an unreadable image ends the computation.
    """

    what: str
    store: Store
    about: dict[str, Any]
    encoder: FrozenEncoder
    dtype: torch.dtype
    precision: Callable[[], AbstractContextManager[Any]]
    workers: int
    threads: int
    stop_at_unreadable: bool

    def fill(self, requests: Requests) -> Filled:
        """Compute the features that the store lacks; every rank must take part.

        Args:
            requests: Requested inputs, the same on all ranks. Those that are unreadable are ignored.

        Raises:
            RobustTuneError: The folder cannot be written, or the disk has too little space.
        """
        chunks = on_rank_zero(None, lambda _: self._plan(requests))
        rounds = Rounds(self.what, self.store, requests, chunks, self.threads, self.stop_at_unreadable)
        report = Report({}, None)
        with rounds.progress:
            while (work := on_rank_zero(report, rounds.next_round)).chunks:
                mine = work.chunks[rank() :: world_size()]
                report = self._compute(requests, [chunks[n] for n in mine], rounds)
        locations = np.full(len(requests), ABSENT)
        if not (work.unreadable and self.stop_at_unreadable):
            if chunks:
                on_rank_zero(None, lambda _: self.store.save())
            unreadable = {requests.keys[number].tobytes() for number in work.unreadable}
            locations[requests.readable] = self._wait_for_shards(requests.keys[requests.readable], unreadable)
        return Filled(locations, list(work.unreadable.values()))

    def _plan(self, requests: Requests) -> list[NDArray[np.int64]]:
        """Divide the inputs without features into chunks; each chunk becomes a shard.

        Returns:
            Numbers of requests, chunk by chunk. Of several inputs with the same key, only one is in a chunk.

        Raises:
            RobustTuneError: The disk has too little space, or the folder cannot be created.
        """
        numbers = np.flatnonzero(requests.readable)
        locations = self.store.refresh(requests.keys[numbers], self.threads)
        missing = self._distinct(requests, numbers[locations == ABSENT])
        if not len(missing):
            self.store.save()
            if len(numbers):
                found = np.unique(locations).size
                rank_zero_info(f"the features of {found:,} {self.what} are read from {self.store.folder}")
            return []
        lengths = requests.lengths(missing)
        size = self._require_room(lengths)
        self._open()
        self.store.save()
        # Small features are divided into more shards, so that jobs which fill the same folder have many to share, but
        # not into more than can be open at a time.
        most = max(LEAST_INPUTS, len(missing) // OPEN)
        each = min(max(1, SHARD * len(missing) // size), most, -(-len(missing) // world_size()))
        chunks = [slice(start, start + each) for start in range(0, len(missing), each)]
        # Texts of similar length follow each other, so that batches need little padding.
        return [missing[chunk][np.argsort(lengths[chunk], kind="stable")] for chunk in chunks]

    def _require_room(self, lengths: NDArray[np.int64]) -> int:
        """Return the size of the features of inputs with these numbers of tokens, in bytes, and log it.

        Raises:
            RobustTuneError: The disk has less space.
        """
        counts = zip(*(each.tolist() for each in np.unique(lengths, return_counts=True)), strict=True)
        size = sum(self.encoder.feature_count(length) * count for length, count in counts) * self.dtype.itemsize
        folder = self.store.folder
        free = shutil.disk_usage(next(path for path in folder.parents if path.exists())).free
        summary = f"the features of {len(lengths):,} {self.what} take {decimal(size)}"
        if size > free:
            raise RobustTuneError(
                f"{summary}, and {folder.parent} has {decimal(free)} free: give another data.cache.folder, fewer "
                "layers, a coarser image_encoder.grid, or data.cache.dtype bfloat16"
            )
        rank_zero_info(f"{summary}; they are computed once, and kept in {folder} ({decimal(free)} free)")
        return size

    def _distinct(self, requests: Requests, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the first input with each key; for images, in the order of their rows."""
        numbers = numbers[first_occurrences(requests.keys[numbers])]
        if self.what == "images":  # Variants of an image follow each other, so that it is read once.
            numbers = numbers[np.argsort(requests.rows_of(numbers), kind="stable")]
        return numbers

    def _open(self) -> None:
        """Create the folder with a description of its features for people, and remove abandoned partial files."""
        folder = self.store.folder
        others = list(folder.parent.glob(f"{folder.name.partition('-')[0]}-*/about.json"))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "about.json").exists():
                _warn_of_differences(self.about, others)
                with atomic_write(folder / "about.json") as partial:
                    partial.write_text(json.dumps(self.about, indent=2) + "\n", encoding="utf-8")
            for path in folder.rglob(".*.partial"):
                if time.time() - path.stat().st_mtime > LEFTOVER:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise RobustTuneError(self._cannot_write(error)) from error

    def _compute(self, requests: Requests, chunks: list[NDArray[np.int64]], rounds: Rounds) -> Report:
        """Compute the features of some chunks, and write a shard for each chunk."""
        items = RequestedInputs(requests, np.concatenate([np.zeros(0, np.int64), *chunks]))
        workers = self._workers(items)
        todo = ChunkBatches(chunks, skip=lambda chunk: self.store.path(shard_name(requests.keys[chunk])).exists())
        loader = WatchedLoader(
            items,
            batch_sampler=todo,
            collate_fn=items.collate,
            num_workers=workers.number,
            prefetch_factor=workers.prefetch if workers.number > 0 else None,
            generator=torch.Generator(),  # a generator of its own, so that the random numbers of training stay the same
            worker_init_fn=ignore_signals_in_worker,
        )
        unreadable: dict[int, str] = {}
        rows: list[Row] = []
        for numbers, inputs, problems in loader:
            rows += self._encode([requests.keys[number].tobytes() for number in numbers], inputs)
            unreadable |= problems
            batch = todo.loading.popleft()
            rounds.advance(batch.size)
            stop = bool(unreadable) and self.stop_at_unreadable
            if stop or batch.is_last:
                try:
                    self._write(rows)
                except OSError as error:
                    return Report(unreadable, self._cannot_write(error))
                rows = []
            if stop:
                break
        return Report(unreadable, None)

    def _workers(self, items: RequestedInputs) -> Workers:
        """Return the workers that load the inputs.

        Their number may be less than the user's choice, because the batch size is not the user's.
        """
        number = min(self.workers, -(-len(items) // BATCH))
        batch = BATCH * max(modality.most_bytes for modality in items.requests.modalities)
        return limited_by_memory(Workers(number, PREFETCH), batch, world_size(), False, f"{BATCH} {self.what}")

    def _encode(self, keys: list[bytes], inputs: Inputs) -> Iterator[Row]:
        """Run the encoder on a batch, and yield the features of each input."""
        if keys:
            device = self.encoder.anchor.device
            with torch.inference_mode(), self.precision():
                values: Any = inputs.values
                values = values.to(device) if isinstance(values, torch.Tensor) else values.map(lambda t: t.to(device))
                yield from rows_of(self.encoder(values), keys, inputs.cut, self.dtype)

    def _write(self, rows: list[Row]) -> None:
        """Write a shard; nothing without rows."""
        if rows:
            path = self.store.path(shard_name(key_array([row.key for row in rows])))
            path.parent.mkdir(exist_ok=True)
            write_shard(path, self.store.fingerprint, rows)

    def _wait_for_shards(self, keys: Keys, unreadable: set[bytes]) -> NDArray[np.int64]:
        """Wait for the shards of other ranks, which a network file system may show with a delay.

        Args:
            keys: Keys of the requested inputs, shape (N, 2).
            unreadable: Keys of the unreadable images, which may have no features.

        Returns:
            Locations of the features, shape (N,).

        Raises:
            RobustTuneError: A shard is not visible after `PATIENCE` seconds.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            locations = self.store.refresh(keys, self.threads)
            if {key.tobytes() for key in keys[locations == ABSENT]} <= unreadable:
                return locations
            if time.monotonic() > deadline:
                raise RobustTuneError(
                    f"{self.store.folder} lacks features that other processes wrote: give a data.cache.folder that "
                    "all machines share"
                )
            time.sleep(0.1)

    def _cannot_write(self, error: OSError) -> str:
        """Return the message for an error while writing."""
        folder = self.store.folder.parent
        return (
            f"the feature cache {folder} cannot be written ({error.strerror}), and its features are kept: make room, "
            "or give another data.cache.folder"
        )


def _warn_of_differences(ours: dict[str, Any], others: list[Path]) -> None:
    """Warn that existing features are not used, and name the settings that differ from the most similar ones."""
    found = []
    for path in others:
        try:
            found.append(differences(ours, json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
    if found:
        nearest = min(found, key=len)
        log.warning("the feature cache has features of other settings, which are not used (%s)", "; ".join(nearest))
