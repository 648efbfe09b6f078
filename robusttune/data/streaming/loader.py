"""A loader of streamed batches that gives every process as many steps, and that can resume within an epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from robusttune.data.streaming.batches import Delivery, StreamedBatches
from robusttune.data.streaming.order import Position
from robusttune.data.workers import WatchedLoader, Workers
from robusttune.errors import RobustTuneError
from robusttune.interruption import ignore_signals_in_worker
from robusttune.ranks import gather
from robusttune.types import Batch


class Progress(NamedTuple):
    """The progress in an epoch.

    Attributes:
        positions: Position of each part, by rank and loader process.
        next: Part of each rank that the next batch is from.
        steps: Number of batches so far.
    """

    positions: list[list[Position]]
    next: list[int]
    steps: int = 0

    def after(self, deliveries: list[tuple[int, Position] | None]) -> Progress:
        """Return the progress after a batch of each rank.

        Args:
            deliveries: Part and position of each rank's batch; None for one that has no more.
        """
        positions, following = [[*parts] for parts in self.positions], [*self.next]
        for rank, found in enumerate(deliveries):
            if found is not None:
                part, positions[rank][part] = found
                following[rank] = (part + 1) % len(positions[rank])
        return Progress(positions, following, self.steps + 1)


class StreamLoader(WatchedLoader):
    """A loader of one process's batches of a stream.

    Nobody knows how many samples the parts of the processes have. So the processes tell each other with every batch
    where they are; one that has no more gives batches that are not counted until all have finished.

    Args:
        dataset: Batches of this process.
        workers: Loader processes.
        epoch: Function that returns the epoch of the next iteration.
    """

    def __init__(self, dataset: StreamedBatches, workers: Workers, epoch: Callable[[], int]) -> None:
        super().__init__(
            dataset,
            batch_size=None,
            num_workers=workers.number,
            collate_fn=_unchanged,
            worker_init_fn=ignore_signals_in_worker,
            prefetch_factor=workers.prefetch if workers.number > 0 else None,
            pin_memory=torch.cuda.is_available(),
        )
        self.batches = dataset
        self.epoch = epoch
        self._fresh = Progress([[Position()] * max(1, workers.number)] * dataset.world_size, [0] * dataset.world_size)
        self._resumed: tuple[int, Progress] | None = None
        self._progress: deque[Progress] = deque([self._fresh])  # before each batch that was not yet used, and after it

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        epoch, progress = self.epoch(), self._fresh
        if self._resumed is not None and self._resumed[0] == epoch:
            progress = self._resumed[1]
        batches, rank = self.batches, self.batches.rank
        batches.epoch, batches.positions, batches.first = epoch, progress.positions[rank], progress.next[rank]
        self._progress = deque([progress])
        deliveries: Iterator[Delivery] = super().__iter__()
        filler: Batch | None = None
        while True:
            found = next(deliveries, None)
            everywhere = self._exchange(found)
            if not any(everywhere):
                if self._progress[-1].steps == 0:
                    raise RobustTuneError(f"{batches.stream.place} has no sample: give it some")
                return
            self._progress.append(self._progress[-1].after(everywhere))
            if not all(everywhere):
                filler = self._filler(needed=found is None and filler is None) or filler
            batch = filler if found is None else found.batch
            assert batch is not None, "a delivery without a problem has a batch"
            yield batch

    def used(self) -> None:
        """Note that the next batch is used. The Trainer fetches batches before it uses them."""
        self._progress.popleft()

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and the progress in it up to the last batch that was used."""
        progress = self._progress[0]
        return {
            "epoch": self.batches.epoch,
            "steps": progress.steps,
            "order": self._order,
            "samples_a_step": self._samples_per_step,
            "positions": [[[*position] for position in parts] for parts in progress.positions],
            "next": progress.next,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the progress of a saved state.

        Raises:
            RobustTuneError: The state is from within an epoch that other processes read, or of other data.
        """
        if state["steps"] == 0:
            return
        positions = [[Position(*position) for position in parts] for parts in state.get("positions", [])]
        shape, given = ([len(parts) for parts in found] for found in (self._fresh.positions, positions))
        if shape != given or state["samples_a_step"] != self._samples_per_step:
            raise RobustTuneError(
                f"the checkpoint was taken inside a streamed epoch of {state['samples_a_step']} samples a step and "
                f"{sum(given)} loader processes, not {self._samples_per_step} and {sum(shape)}: resume with the same "
                f"batch_size and devices, and data.loader.workers {given[0]}"
            )
        if state["order"] != self._order:
            found, now = (
                f"{order['files']} files, data.source.stream.buffer {order['buffer']} and data.seed {order['seed']}"
                for order in (state["order"], self._order)
            )
            raise RobustTuneError(
                f"the checkpoint was taken inside a streamed epoch of {found}, not {now}: resume with the same"
            )
        self._resumed = state["epoch"], Progress(positions, state["next"], state["steps"])

    @property
    def _order(self) -> dict[str, int]:
        """Return what the order of the samples depends on, besides the epoch."""
        stream = self.batches.stream
        return {"files": stream.shards, "buffer": stream.buffer, "seed": self.batches.preprocessing.seed}

    @property
    def _samples_per_step(self) -> int:
        return self.batches.batch_size * self.batches.world_size

    def _exchange(self, found: Delivery | None) -> list[tuple[int, Position] | None]:
        """Return the part and position of each rank's batch; None for one that has no more."""
        own = None if found is None else (found.part, found.position)
        everywhere = gather((own, "" if found is None else found.problem))
        self._raise_any([problem for _, problem in everywhere])
        return [None if place is None else (place[0], Position(*place[1])) for place, _ in everywhere]

    def _filler(self, needed: bool) -> Batch | None:
        """Return a batch that is not counted if this rank needs one. Every rank must call this."""
        batch, problem = None, ""
        if needed:
            try:
                batch = self.batches.filler()
            except RobustTuneError as error:
                problem = str(error)
        self._raise_any(gather(problem))
        return batch

    def _raise_any(self, problems: list[str]) -> None:
        """Raise the first error of the ranks, on all of them. An empty text is none."""
        for rank, problem in enumerate(problems):
            if problem:
                raise RobustTuneError(problem, reported_elsewhere=rank != self.batches.rank)


def _unchanged(delivery: Any) -> Any:
    return delivery
