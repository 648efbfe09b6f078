"""A sampler and a loader that can resume in the middle of an epoch.

The next sample is a pure function of seed, epoch, position and rank, so a resumed run sees exactly the same order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import DistributedSampler

from robusttune.data.balance import Quotas
from robusttune.data.orders import Balanced, Order, in_row_order, shuffled
from robusttune.data.workers import WatchedLoader
from robusttune.errors import RobustTuneError
from robusttune.types import Batch, Draw

AT_ONCE = 1 << 12  # number of positions whose rows are computed together


class ResumableSampler(DistributedSampler[Draw]):
    """A sampler of the rows that one rank draws. Rank r of W takes positions r, r + W, ... of the epoch's order.

    The order is filled up to a multiple of W with repeated rows whose `Draw` is marked as not counted. The class
    extends `DistributedSampler`, so Lightning keeps it and calls `set_epoch`.

    Args:
        rows: Number of samples, at least 1.
        shuffle: Whether each epoch has a random order of its own; otherwise the rows keep their order.
        seed: Seed of the random orders.
        rank: Rank of this process, from 0.
        world_size: Number of ranks.
        quotas: Numbers of draws of the rows in a shuffled epoch, which has as many draws as rows in any case; None to
            draw each row once.

    Example:
        >>> sampler = ResumableSampler(3, shuffle=False, seed=0, rank=1, world_size=2)
        >>> [(draw.row, draw.counted) for draw in sampler]
        [(1, True), (0, False)]
    """

    def __init__(
        self, rows: int, *, shuffle: bool, seed: int, rank: int, world_size: int, quotas: Quotas | None = None
    ) -> None:
        super().__init__(range(rows), num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.rows = rows
        self.balanced = None if quotas is None else Balanced(quotas, seed)
        self.resumed_epoch, self.resumed_position = 0, 0

    def __iter__(self) -> Iterator[Draw]:
        epoch, order, step = self.epoch, self._order(), self.num_replicas
        for first in range(self.start + self.rank, self.total_size, step * AT_ONCE):
            positions = np.arange(first, min(first + step * AT_ONCE, self.total_size), step)
            rows, repeats = order(positions % self.rows)
            columns = (rows.tolist(), (positions < self.rows).tolist(), repeats.tolist())
            for row, counted, repeat in zip(*columns, strict=True):
                yield Draw(epoch, row, counted, repeat)

    def _order(self) -> Order:
        """Return the order of the epoch, over all ranks."""
        if not self.shuffle:
            return in_row_order
        if self.balanced is not None:
            return self.balanced.order(self.epoch)
        return shuffled(self.rows, self.seed, self.epoch)

    @property
    def start(self) -> int:
        """Return the first position of the epoch, over all ranks: 0 except in a resumed epoch."""
        return self.resumed_position if self.epoch == self.resumed_epoch else 0

    def resume(self, epoch: int, position: int) -> None:
        """Continue in the middle of an epoch.

        Args:
            epoch: Epoch to continue, from 0.
            position: Number of samples that all ranks together have taken in that epoch.
        """
        self.set_epoch(epoch)
        self.resumed_epoch, self.resumed_position = epoch, position


class ResumableLoader(WatchedLoader):
    """A loader over a `ResumableSampler` that saves and restores its position in the epoch.

    Attributes:
        position: Number of samples that all ranks together have taken in the current epoch.
    """

    position = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # This is a generator, so its body runs at the first `next`, after Lightning has set the sampler's epoch.
        self.position = getattr(self.sampler, "start", 0)
        for batch in super().__iter__():
            self.position += self._samples_per_step
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, the position in it, and the number of samples of one step over all ranks."""
        epoch = getattr(self.sampler, "epoch", 0)
        return {"epoch": epoch, "position": self.position, "samples_a_step": self._samples_per_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at the position of a saved state.

        Args:
            state: Result of `state_dict`.

        Raises:
            RobustTuneError: The state is from within an epoch and has another number of samples per step.
        """
        sampler = self.sampler
        assert isinstance(sampler, ResumableSampler)
        inside = 0 < state["position"] < sampler.rows
        if inside and state["samples_a_step"] != self._samples_per_step:
            raise RobustTuneError(
                f"the checkpoint was taken inside an epoch of {state['samples_a_step']} samples a step over all "
                f"devices, not {self._samples_per_step}: resume with the same batch_size and devices"
            )
        sampler.resume(state["epoch"], state["position"])

    @property
    def _samples_per_step(self) -> int:
        return (self.batch_size or 1) * getattr(self.sampler, "num_replicas", 1)
