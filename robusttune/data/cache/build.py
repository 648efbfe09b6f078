"""Filling a store: what it lacks is computed by all ranks together, a few shards at a time."""

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
from robusttune.data.images import UnreadableImageError
from robusttune.data.modalities import Inputs, RawModality
from robusttune.data.workers import WatchedLoader, Workers, limited_by_memory, share
from robusttune.encoders import FrozenEncoder
from robusttune.errors import RobustTuneError
from robusttune.interruption import leave_to_main
from robusttune.paths import whole_file
from robusttune.ranks import on_rank_zero, rank, world_size
from robusttune.settings import differences

log = logging.getLogger(__name__)

SHARD = 1 << 25  # bytes of a shard, about: what an interrupted build loses at most
BATCH = 64  # inputs that an encoder takes at once
PREFETCH = 2  # batches that each worker loads ahead
LEG = 20  # seconds, about, after which ranks meet, and see what other jobs have done
TRIES = 3  # legs in which another job may remove what this one writes
PATIENCE = 60  # seconds in which a shard that one rank wrote must be seen by all
LEFTOVER = 86_400  # seconds after which nobody writes to a partial file any more


class Request(NamedTuple):
    """An input whose features are wanted: its key, and the side, row and view by which it is read."""

    key: bytes
    side: RawModality
    row: int
    view: int


class Round(NamedTuple):
    """What the ranks do until they meet again: numbers of chunks, and what could not be read so far, by key."""

    chunks: list[int]
    unreadable: dict[bytes, str]


class Report(NamedTuple):
    """What a rank has met with: what could not be read, by key, and why it could not go on."""

    unreadable: dict[bytes, str]
    problem: str | None


@dataclass
class Builder:
    """Computes features into a store's folder.

    Args:
        what: ``images`` or ``texts``.
        store: to be filled.
        about: what its fingerprint is of.
        encoder: that makes the features, on the device on which it runs.
        dtype: in which they are kept.
        precision: context in which the encoder runs.
        workers: loader processes on this rank.
        threads: that check shards on this rank.
        stop_at_unreadable: whether an image that cannot be read ends the build.
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

    def fill(self, wanted: list[Request]) -> list[str]:
        """Compute what the store lacks; every rank must take part.

        Args:
            wanted: the same on all ranks, each key once.

        Returns:
            A sentence for each image that could not be read; if that ends the build, for those met with.

        Raises:
            RobustTuneError: the folder cannot be written, or the disk has no room.
        """
        keys = {item.key for item in wanted}
        self.store.refresh(keys, self.threads)
        chunks = on_rank_zero(None, lambda _: self._plan(wanted))
        meeting = _Synchronisation(self, keys, [[wanted[i].key for i in chunk] for chunk in chunks])
        report = Report({}, None)
        with meeting.progress:
            while (leg := on_rank_zero(report, meeting.next_round)).chunks:
                mine = leg.chunks[rank() :: world_size()]
                report = self._compute([[wanted[i] for i in chunks[n]] for n in mine], meeting)
        if not (leg.unreadable and self.stop_at_unreadable):
            self._see_all(keys - leg.unreadable.keys())
        return list(leg.unreadable.values())

    def _plan(self, wanted: list[Request]) -> list[list[int]]:
        """What is missing, in chunks that each become a shard: numbers into ``wanted``.

        Raises:
            RobustTuneError: there is no room for it, or the folder cannot be made.
        """
        missing = [i for i, item in enumerate(wanted) if item.key not in self.store]
        if not missing:
            if wanted:
                rank_zero_info(f"the features of {len(wanted):,} {self.what} are read from {self.store.folder}")
            return []
        lengths = self._lengths([wanted[i] for i in missing])
        sizes = [self.encoder.numbers(length) * self.dtype.itemsize for length in lengths]
        folder = self.store.folder
        free = shutil.disk_usage(next(path for path in folder.parents if path.exists())).free
        said = f"the features of {len(missing):,} {self.what} take {decimal(sum(sizes))}"
        if sum(sizes) > free:
            raise RobustTuneError(
                f"{said}, and {folder.parent} has {decimal(free)} free: give another data.cache, fewer layers, "
                "a coarser image_encoder.grid, or data.cache_dtype bfloat16"
            )
        self._open()
        rank_zero_info(f"{said}; they are computed once, and kept in {folder} ({decimal(free)} free)")
        each = min(max(1, SHARD * len(missing) // sum(sizes)), -(-len(missing) // world_size()))
        chunks = [range(start, min(start + each, len(missing))) for start in range(0, len(missing), each)]
        # Texts of a length go together, so that little is padded.
        return [[missing[i] for i in sorted(chunk, key=lengths.__getitem__)] for chunk in chunks]

    def _lengths(self, items: list[Request]) -> list[int]:
        groups = itertools.groupby(items, key=lambda item: item.side)
        return [n for side, group in groups for n in side.lengths([(item.row, item.view) for item in group])]

    def _open(self) -> None:
        """Make the folder, and say in it, for people, what it holds features of."""
        folder = self.store.folder
        others = list(folder.parent.glob(f"{folder.name.partition('-')[0]}-*/about.json"))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "about.json").exists():
                _say_what_differs(self.about, others)
                with whole_file(folder / "about.json") as partial:
                    partial.write_text(json.dumps(self.about, indent=2) + "\n", encoding="utf-8")
            for path in folder.glob(".*.partial"):
                if time.time() - path.stat().st_mtime > LEFTOVER:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise RobustTuneError(self._cannot_write(error)) from error

    def _compute(self, chunks: list[list[Request]], meeting: _Synchronisation) -> Report:
        """Compute chunks, and write a shard of each."""
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
            generator=torch.Generator(),  # not the one that training draws from
            worker_init_fn=leave_to_main,
        )
        unreadable: dict[bytes, str] = {}
        loaded = iter(loader)
        for chunk in batches:
            rows: list[Row] = []
            for batch in chunk:
                keys, inputs, problems = next(loaded)
                rows += self._encode(keys, inputs)
                unreadable |= problems
                meeting.advance(len(batch))
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
        """Return the workers that load the inputs; whatever the user chose, for batches of this size are ours."""
        number = min(self.workers, -(-len(items) // BATCH))
        batch = BATCH * max((item.side.most_bytes for item in items.items[:1]), default=0)
        return limited_by_memory(Workers(number, PREFETCH), batch, world_size(), False, f"{BATCH} {self.what}")

    def _encode(self, keys: list[bytes], inputs: Inputs) -> Iterator[Row]:
        if keys:
            device = self.encoder.anchor.device
            with torch.inference_mode(), self.precision():
                values: Any = inputs.values
                values = values.to(device) if isinstance(values, torch.Tensor) else values.map(lambda t: t.to(device))
                yield from rows_of(self.encoder(values), keys, inputs.cut, self.dtype)

    def _write(self, rows: list[Row]) -> None:
        if rows:
            name = hashlib.blake2b(b"".join(row.key for row in rows), digest_size=16).hexdigest()
            write_shard(self.store.folder / f"{name}{SUFFIX}", self.store.fingerprint, rows)

    def _see_all(self, keys: set[bytes]) -> None:
        """Wait until what other ranks wrote is there: a network's file system takes its time."""
        deadline = time.monotonic() + PATIENCE
        while not all(key in self.store for key in keys):
            self.store.refresh(keys, self.threads)
            if time.monotonic() > deadline:
                raise RobustTuneError(
                    f"{self.store.folder} lacks what other processes wrote: give a data.cache that all machines share"
                )
            time.sleep(0.1)

    def _cannot_write(self, error: OSError) -> str:
        folder = self.store.folder.parent
        return (
            f"the feature cache {folder} cannot be written ({error.strerror}), and what is in it stays: make room, "
            "or give another data.cache"
        )


class _Synchronisation:
    """What rank 0 decides when the ranks meet.

    Chunks come in an order of this job's own: jobs that fill one folder at a time seldom compute the same.
    """

    def __init__(self, builder: Builder, keys: set[bytes], chunks: list[list[bytes]]) -> None:
        self.builder = builder
        self.keys = keys
        self.chunks = chunks
        self.order = random.Random().sample(range(len(chunks)), len(chunks))
        self.unreadable: dict[bytes, str] = {}
        self.each = 1  # chunks a rank until the next meeting
        self.tries = 0  # legs after which nothing more was there
        self.left = len(chunks)
        self.begun = time.monotonic()
        shown = rank() == 0 and sys.stderr.isatty() and bool(chunks)
        self.progress = Progress(console=Console(stderr=True), transient=True, disable=not shown)
        self.task = self.progress.add_task(f"{builder.what}: features", total=sum(map(len, chunks)))

    def next_round(self, reports: list[Report]) -> Round:
        """What to do next; nothing when all is done.

        Raises:
            RobustTuneError: a rank could not go on.
        """
        for report in reports:
            if report.problem is not None:
                raise RobustTuneError(report.problem)
            self.unreadable |= report.unreadable
        store = self.builder.store
        store.refresh(self.keys, self.builder.threads)
        left = [n for n in self.order if any(k not in store and k not in self.unreadable for k in self.chunks[n])]
        if self.unreadable and self.builder.stop_at_unreadable:
            left = []
        self.tries = self.tries + 1 if len(left) == self.left else 0
        self.left = len(left)
        if self.tries > TRIES:
            raise RobustTuneError(f"what is written to {store.folder} is not there afterwards: check the disk")
        took, self.begun = time.monotonic() - self.begun, time.monotonic()
        self.each = self.each * 2 if took < LEG / 2 else max(1, self.each // 2) if took > LEG * 2 else self.each
        done = sum(map(len, self.chunks)) - sum(len(self.chunks[n]) for n in left)
        self.progress.update(self.task, completed=done)
        return Round(left[: self.each * world_size()], self.unreadable)

    def advance(self, inputs: int) -> None:
        """Show that this rank has computed some, and so, about, have the others."""
        self.progress.advance(self.task, inputs * world_size())


class _Inputs(Dataset[Any]):
    """What is wanted, read: the key, and what was read or why it could not be."""

    def __init__(self, items: list[Request]) -> None:
        self.items = items

    def __getitem__(self, number: int) -> tuple[bytes, Any, str | None]:
        item = self.items[number]
        try:
            return item.key, item.side.read(item.row, item.view), None
        except UnreadableImageError as error:
            return item.key, None, str(error)

    def __len__(self) -> int:
        return len(self.items)

    def collate(self, read: list[tuple[bytes, Any, str | None]]) -> tuple[list[bytes], Inputs, dict[bytes, str]]:
        """Keys of the inputs that could be read, the inputs, and what is wrong with the others."""
        good = [(key, value) for key, value, problem in read if problem is None]
        problems = {key: problem for key, _, problem in read if problem is not None}
        side = self.items[0].side  # all sides of an encoder put its inputs together alike
        inputs = side.collate([value for _, value in good])
        return [key for key, _ in good], inputs._replace(values=share(inputs.values)), problems


def _say_what_differs(ours: dict[str, Any], others: list[Path]) -> None:
    """Why what was kept before is not used: how it differs from the nearest of it."""
    found = []
    for path in others:
        try:
            found.append(differences(ours, json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
    if found:
        nearest = min(found, key=len)
        log.warning("what the feature cache has is of other settings, and is not used (%s)", "; ".join(nearest))
