"""Computation of the features that a store lacks, by all ranks together, a few shards per round."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress
from torch.utils.data import Dataset

from robusttune.data.cache.shard import SUFFIX, Row, rows_of, write_shard
from robusttune.data.cache.store import Store
from robusttune.data.image_modality import unreadable_parts
from robusttune.data.images import UnreadableImageError
from robusttune.data.modalities import Inputs, RawModality
from robusttune.data.workers import WatchedLoader, Workers, limited_by_memory, share
from robusttune.encoders import FrozenEncoder
from robusttune.errors import RobustTuneError
from robusttune.interruption import ignore_signals_in_worker
from robusttune.paths import atomic_write
from robusttune.ranks import on_rank_zero, rank, world_size
from robusttune.settings import differences

log = logging.getLogger(__name__)

SHARD = 1 << 25  # approximate size of a shard in bytes, which is the most that an interruption can lose per rank
BATCH = 64  # number of inputs per forward pass
PREFETCH = 2  # number of batches that each worker loads ahead
ROUND_SECONDS = 20  # approximate duration of a round; then the ranks synchronise and look for shards of other jobs
TRIES = 3  # number of rounds without progress, in which another job may remove the shards of this one
PATIENCE = 60  # seconds after which a shard that one rank wrote must be visible to all ranks
LEFTOVER = 86_400  # age in seconds from which a partial file is assumed to be abandoned


class Request(NamedTuple):
    """An input whose features are requested.

    Attributes:
        key: Key of the input, 16 bytes.
        modality: Modality that reads the input.
        row: Row of the sample.
        view: Index of the random view.
    """

    key: bytes
    modality: RawModality
    row: int
    view: int


class Round(NamedTuple):
    """The work of all ranks until the next synchronisation.

    Attributes:
        chunks: Numbers of the chunks to compute; empty at the end.
        unreadable: Error messages of the unreadable images so far, by key.
    """

    chunks: list[int]
    unreadable: dict[bytes, str]


class Report(NamedTuple):
    """The result of a rank's work in one round.

    Attributes:
        unreadable: Error messages of the unreadable images in this round, by key.
        problem: Message of the error that stopped the rank, or None.
    """

    unreadable: dict[bytes, str]
    problem: str | None


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

    def fill(self, requests: list[Request]) -> list[str]:
        """Compute the features that the store lacks; every rank must take part.

        Args:
            requests: Requested inputs, the same on all ranks, each key once.

        Returns:
            Error messages of the unreadable images. With ``stop_at_unreadable``, only those found before the stop.

        Raises:
            RobustTuneError: The folder cannot be written, or the disk has too little space.
        """
        keys = {item.key for item in requests}
        self.store.refresh(keys, self.threads)
        chunks = on_rank_zero(None, lambda _: self._plan(requests))
        synchronisation = _Synchronisation(self, keys, [[requests[i].key for i in chunk] for chunk in chunks])
        report = Report({}, None)
        with synchronisation.progress:
            while (work := on_rank_zero(report, synchronisation.next_round)).chunks:
                mine = work.chunks[rank() :: world_size()]
                report = self._compute([[requests[i] for i in chunks[n]] for n in mine], synchronisation)
        if not (work.unreadable and self.stop_at_unreadable):
            self._wait_for_shards(keys - work.unreadable.keys())
        return list(work.unreadable.values())

    def _plan(self, requests: list[Request]) -> list[list[int]]:
        """Divide the inputs without features into chunks; each chunk becomes a shard.

        Returns:
            Indices into ``requests``, chunk by chunk.

        Raises:
            RobustTuneError: The disk has too little space, or the folder cannot be created.
        """
        missing = [i for i, item in enumerate(requests) if item.key not in self.store]
        if not missing:
            if requests:
                rank_zero_info(f"the features of {len(requests):,} {self.what} are read from {self.store.folder}")
            return []
        lengths = self._lengths([requests[i] for i in missing])
        sizes = [self.encoder.feature_count(length) * self.dtype.itemsize for length in lengths]
        folder = self.store.folder
        free = shutil.disk_usage(next(path for path in folder.parents if path.exists())).free
        summary = f"the features of {len(missing):,} {self.what} take {decimal(sum(sizes))}"
        if sum(sizes) > free:
            raise RobustTuneError(
                f"{summary}, and {folder.parent} has {decimal(free)} free: give another data.cache.folder, fewer "
                "layers, a coarser image_encoder.grid, or data.cache.dtype bfloat16"
            )
        self._open()
        rank_zero_info(f"{summary}; they are computed once, and kept in {folder} ({decimal(free)} free)")
        each = min(max(1, SHARD * len(missing) // sum(sizes)), -(-len(missing) // world_size()))
        chunks = [range(start, min(start + each, len(missing))) for start in range(0, len(missing), each)]
        # Texts of similar length follow each other, so that batches need little padding.
        return [[missing[i] for i in sorted(chunk, key=lengths.__getitem__)] for chunk in chunks]

    def _lengths(self, items: list[Request]) -> list[int]:
        """Return the number of tokens of each input; 0 for images."""
        groups = itertools.groupby(items, key=lambda item: item.modality)
        return [n for modality, group in groups for n in modality.lengths([(item.row, item.view) for item in group])]

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
            for path in folder.glob(".*.partial"):
                if time.time() - path.stat().st_mtime > LEFTOVER:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise RobustTuneError(self._cannot_write(error)) from error

    def _compute(self, chunks: list[list[Request]], synchronisation: _Synchronisation) -> Report:
        """Compute the features of some chunks, and write a shard for each chunk."""
        items = _Inputs([item for chunk in chunks for item in chunk])
        ends = [0, *itertools.accumulate(map(len, chunks))]
        workers = self._workers(items)
        batches = [
            [list(range(i, min(i + BATCH, end))) for i in range(start, end, BATCH)]
            for start, end in itertools.pairwise(ends)
        ]
        loader = WatchedLoader(
            items,
            batch_sampler=[batch for chunk in batches for batch in chunk],
            collate_fn=items.collate,
            num_workers=workers.number,
            prefetch_factor=workers.prefetch if workers.number > 0 else None,
            generator=torch.Generator(),  # a generator of its own, so that the random numbers of training stay the same
            worker_init_fn=ignore_signals_in_worker,
        )
        unreadable: dict[bytes, str] = {}
        loaded = iter(loader)
        for chunk in batches:
            rows: list[Row] = []
            for batch in chunk:
                keys, inputs, problems = next(loaded)
                rows += self._encode(keys, inputs)
                unreadable |= problems
                synchronisation.advance(len(batch))
                if unreadable and self.stop_at_unreadable:
                    break
            try:
                self._write(rows)
            except OSError as error:
                return Report(unreadable, self._cannot_write(error))
            if unreadable and self.stop_at_unreadable:
                break
        return Report(unreadable, None)

    def _workers(self, items: _Inputs) -> Workers:
        """Return the workers that load the inputs.

        Their number may be less than the user's choice, because the batch size is not the user's.
        """
        number = min(self.workers, -(-len(items) // BATCH))
        batch = BATCH * max((item.modality.most_bytes for item in items.items[:1]), default=0)
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
        """Write a shard whose name is a hash of its keys; nothing without rows."""
        if rows:
            name = hashlib.blake2b(b"".join(row.key for row in rows), digest_size=16).hexdigest()
            write_shard(self.store.folder / f"{name}{SUFFIX}", self.store.fingerprint, rows)

    def _wait_for_shards(self, keys: set[bytes]) -> None:
        """Wait for the shards of other ranks, which a network file system may show with a delay.

        Raises:
            RobustTuneError: A shard is not visible after `PATIENCE` seconds.
        """
        deadline = time.monotonic() + PATIENCE
        while not all(key in self.store for key in keys):
            self.store.refresh(keys, self.threads)
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


class _Synchronisation:
    """The synchronisation of the ranks: after each round, rank 0 distributes the next chunks.

    The order of the chunks is random in each job, so that jobs that fill the same folder rarely compute the same chunk.

    Args:
        builder: Builder whose store is filled.
        keys: Keys of all requested inputs.
        chunks: Keys of the inputs of each chunk.
    """

    def __init__(self, builder: Builder, keys: set[bytes], chunks: list[list[bytes]]) -> None:
        self.builder = builder
        self.keys = keys
        self.chunks = chunks
        self.order = random.Random().sample(range(len(chunks)), len(chunks))
        self.unreadable: dict[bytes, str] = {}
        self.chunks_per_rank = 1  # number of chunks per rank in the next round
        self.tries = 0  # number of rounds without progress in a row
        self.remaining = len(chunks)
        self.started = time.monotonic()
        shown = rank() == 0 and sys.stderr.isatty() and bool(chunks)
        self.progress = Progress(console=Console(stderr=True), transient=True, disable=not shown)
        self.task = self.progress.add_task(f"{builder.what}: features", total=sum(map(len, chunks)))

    def next_round(self, reports: list[Report]) -> Round:
        """Return the work of the next round; it has no chunks if all features exist.

        The number of chunks per rank adapts so that a round takes about `ROUND_SECONDS` seconds.

        Args:
            reports: Results of all ranks in the last round.

        Raises:
            RobustTuneError: A rank has stopped with an error, or several rounds in a row made no progress.
        """
        for report in reports:
            if report.problem is not None:
                raise RobustTuneError(report.problem)
            self.unreadable |= report.unreadable
        store = self.builder.store
        store.refresh(self.keys, self.builder.threads)
        remaining = [n for n in self.order if any(k not in store and k not in self.unreadable for k in self.chunks[n])]
        if self.unreadable and self.builder.stop_at_unreadable:
            remaining = []
        self.tries = self.tries + 1 if len(remaining) == self.remaining else 0
        self.remaining = len(remaining)
        if self.tries > TRIES:
            raise RobustTuneError(f"features written to {store.folder} are not found afterwards: check the disk")
        took, self.started = time.monotonic() - self.started, time.monotonic()
        self.chunks_per_rank = (
            self.chunks_per_rank * 2
            if took < ROUND_SECONDS / 2
            else max(1, self.chunks_per_rank // 2)
            if took > ROUND_SECONDS * 2
            else self.chunks_per_rank
        )
        done = sum(map(len, self.chunks)) - sum(len(self.chunks[n]) for n in remaining)
        self.progress.update(self.task, completed=done)
        return Round(remaining[: self.chunks_per_rank * world_size()], self.unreadable)

    def advance(self, inputs: int) -> None:
        """Advance the progress bar.

        Args:
            inputs: Number of inputs that this rank has computed. The other ranks have probably computed as many.
        """
        self.progress.advance(self.task, inputs * world_size())


class _Inputs(Dataset[Any]):
    """A data set of the requested inputs: keys, inputs, and the reasons why images are unreadable.

    An unreadable input is None. An input of several images, of which some are unreadable, has a reason, too.
    """

    def __init__(self, items: list[Request]) -> None:
        self.items = items

    def __getitem__(self, number: int) -> tuple[bytes, Any, str | None]:
        item = self.items[number]
        try:
            value = item.modality.read(item.row, item.view)
        except UnreadableImageError as error:
            return item.key, None, str(error)
        return item.key, value, "; ".join(unreadable_parts(value)) or None

    def __len__(self) -> int:
        return len(self.items)

    def collate(self, read: list[tuple[bytes, Any, str | None]]) -> tuple[list[bytes], Inputs, dict[bytes, str]]:
        """Collate inputs.

        Args:
            read: Items of the data set.

        Returns:
            Keys of the readable inputs, these inputs in shared memory, and the reasons by key.
        """
        good = [(key, value) for key, value, _ in read if value is not None]
        problems = {key: problem for key, _, problem in read if problem is not None}
        modality = self.items[0].modality  # all modalities of an encoder collate its inputs in the same way
        inputs = modality.collate([value for _, value in good])
        return [key for key, _ in good], inputs._replace(values=share(inputs.values)), problems


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
