"""The rounds in which all ranks compute the features that a store lacks."""

from __future__ import annotations

import random
import sys
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from robusttune.data.cache.index import ABSENT
from robusttune.data.cache.requests import Requests
from robusttune.data.cache.store import Store
from robusttune.errors import RobustTuneError
from robusttune.ranks import rank, world_size

ROUND_SECONDS = 20  # approximate duration of a round; then the ranks synchronise and look for shards of other jobs
TRIES = 3  # number of rounds without progress, in which another job may remove the shards of this one


class Round(NamedTuple):
    """The work of all ranks until the next synchronisation.

    Attributes:
        chunks: Numbers of the chunks to compute; empty at the end.
        unreadable: Error messages of the unreadable images so far, by number of the request.
    """

    chunks: list[int]
    unreadable: dict[int, str]


class Report(NamedTuple):
    """The result of a rank's work in one round.

    Attributes:
        unreadable: Error messages of the unreadable images in this round, by number of the request.
        problem: Message of the error that stopped the rank, or None.
    """

    unreadable: dict[int, str]
    problem: str | None


class Rounds:
    """The synchronisation of the ranks: after each round, rank 0 distributes the next chunks.

    The order of the chunks is random in each job, so that jobs that fill the same folder rarely compute the same chunk.

    Args:
        what: Kind of the inputs: ``images`` or ``texts``.
        store: Store to fill.
        requests: Requested inputs.
        chunks: Numbers of the requests of each chunk.
        threads: Number of threads that check shards on this rank.
        stop_at_unreadable: Whether an unreadable image ends the computation.
    """

    def __init__(
        self,
        what: str,
        store: Store,
        requests: Requests,
        chunks: list[NDArray[np.int64]],
        threads: int,
        stop_at_unreadable: bool,
    ) -> None:
        self.store = store
        self.requests = requests
        self.threads = threads
        self.stop_at_unreadable = stop_at_unreadable
        self.sizes = np.array([len(chunk) for chunk in chunks], dtype=np.int64)
        self.order = np.array(random.Random().sample(range(len(chunks)), len(chunks)), dtype=np.int64)
        self.pending = np.concatenate([np.zeros(0, np.int64), *chunks])  # requests without features
        self.chunk_of = np.repeat(np.arange(len(chunks)), self.sizes)  # chunk of each of them
        self.unreadable: dict[int, str] = {}
        self.chunks_per_rank = 1  # number of chunks per rank in the next round
        self.tries = 0  # number of rounds without progress in a row
        self.remaining = len(chunks)
        self.started = time.monotonic()
        shown = rank() == 0 and sys.stderr.isatty() and bool(chunks)
        self.progress = Progress(console=Console(stderr=True), transient=True, disable=not shown)
        self.task = self.progress.add_task(f"{what}: features", total=int(self.sizes.sum()))

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
        remaining = self._remaining()
        if self.unreadable and self.stop_at_unreadable:
            remaining = []
        self.tries = self.tries + 1 if len(remaining) == self.remaining else 0
        self.remaining = len(remaining)
        if self.tries > TRIES:
            raise RobustTuneError(f"features written to {self.store.folder} are not found afterwards: check the disk")
        took, self.started = time.monotonic() - self.started, time.monotonic()
        self.chunks_per_rank = (
            self.chunks_per_rank * 2
            if took < ROUND_SECONDS / 2
            else max(1, self.chunks_per_rank // 2)
            if took > ROUND_SECONDS * 2
            else self.chunks_per_rank
        )
        self.progress.update(self.task, completed=int(self.sizes.sum() - self.sizes[remaining].sum()))
        return Round(remaining[: self.chunks_per_rank * world_size()], self.unreadable)

    def _remaining(self) -> list[int]:
        """Return the chunks of which some inputs have no features yet, in the order of this job."""
        keys = self.requests.keys[self.pending]
        left = self.store.refresh(keys, self.threads) == ABSENT
        left &= ~np.isin(self.pending, [*self.unreadable])
        self.pending, self.chunk_of = self.pending[left], self.chunk_of[left]
        found: list[int] = self.order[np.isin(self.order, self.chunk_of)].tolist()
        return found

    def advance(self, inputs: int) -> None:
        """Advance the progress bar.

        Args:
            inputs: Number of inputs that this rank has computed. The other ranks have probably computed as many.
        """
        self.progress.advance(self.task, inputs * world_size())
