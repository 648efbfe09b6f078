"""What comes next: a pure function of (seed, epoch, position, rank), so that a stopped epoch goes on exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import DistributedSampler

from robusttune.data.workers import WatchedLoader
from robusttune.errors import RobustTuneError
from robusttune.types import Batch, Draw


class ResumableSampler(DistributedSampler[Draw]):
    """Draws of one rank. Rank r of W takes positions r, r + W, ... of the epoch's order.

    The last positions are filled up to a multiple of W with draws that do not count. It is a `DistributedSampler`
    so that Lightning leaves it in place, and calls `set_epoch`.

    Args:
        rows: number of samples, at least 1.
        shuffle: a new order every epoch, else the rows as they stand.
        seed: of the orders.
        rank: this rank, from 0.
        world_size: number of ranks.
    """

    def __init__(self, rows: int, *, shuffle: bool, seed: int, rank: int, world_size: int) -> None:
        super().__init__(range(rows), num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.rows = rows
        self.resumed_epoch, self.resumed_position = 0, 0

    def __iter__(self) -> Iterator[Draw]:
        epoch = self.epoch
        order = np.random.default_rng([self.seed, epoch]).permutation(self.rows) if self.shuffle else None
        for position in range(self.start + self.rank, self.total_size, self.num_replicas):
            row = position % self.rows
            yield Draw(epoch, row if order is None else int(order[row]), counted=position < self.rows)

    @property
    def start(self) -> int:
        """Position, over all ranks, at which this epoch begins: not 0 only in the epoch that was resumed."""
        return self.resumed_position if self.epoch == self.resumed_epoch else 0

    def resume(self, epoch: int, position: int) -> None:
        """Begin in the middle: at this position, over all ranks, of this epoch."""
        self.set_epoch(epoch)
        self.resumed_epoch, self.resumed_position = epoch, position


class ResumableLoader(WatchedLoader):
    """A loader over a `ResumableSampler` that knows how far it has come."""

    position = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # As a generator this runs at the first `next`, which is after Lightning has set the sampler's epoch.
        self.position = getattr(self.sampler, "start", 0)
        for batch in super().__iter__():
            self.position += self._samples_a_step
            yield batch

    def state_dict(self) -> dict[str, int]:
        epoch = getattr(self.sampler, "epoch", 0)
        return {"epoch": epoch, "position": self.position, "samples_a_step": self._samples_a_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where the state was taken.

        Raises:
            RobustTuneError: it was taken inside an epoch with another number of samples a step.
        """
        sampler = self.sampler
        assert isinstance(sampler, ResumableSampler)
        inside = 0 < state["position"] < sampler.rows
        if inside and state["samples_a_step"] != self._samples_a_step:
            raise RobustTuneError(
                f"the checkpoint was taken inside an epoch of {state['samples_a_step']} samples a step over all "
                f"devices, not {self._samples_a_step}: resume with the same batch_size and devices"
            )
        sampler.resume(state["epoch"], state["position"])

    @property
    def _samples_a_step(self) -> int:
        return (self.batch_size or 1) * getattr(self.sampler, "num_replicas", 1)
