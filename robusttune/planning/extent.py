"""How much a training does: batches, epochs and validations, on however many devices."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robusttune.data.sampler import ResumableSampler

EPOCHS = 1000  # of a Trainer that is told neither epochs nor steps


@dataclass(frozen=True)
class Extent:
    """How much of what a training does.

    Attributes:
        devices: of each node.
        nodes: machines.
        max_epochs: None where nothing is set.
        max_steps: of the optimiser, -1 for no limit.
        accumulate: batches of each device that make a step of the optimiser.
        limit_train: batches an epoch (int), or a share of them in [0, 1].
        limit_val: batches a validation, likewise.
        validate_every: epochs from one validation to the next.
        check_interval: batches, or the share of an epoch, from one validation to the next within an epoch.
    """

    devices: int = 1
    nodes: int = 1
    max_epochs: int | None = None
    max_steps: int = -1
    accumulate: int = 1
    limit_train: int | float = 1.0
    limit_val: int | float = 1.0
    validate_every: int = 1
    check_interval: int | float = 1.0

    @property
    def world_size(self) -> int:
        """Devices of all nodes."""
        return self.devices * self.nodes

    def train_batches(self, rows: int, batch_size: int) -> int:
        """Batches that each device takes in an epoch.

        Args:
            rows: of the training split.
            batch_size: samples a batch, on each device.
        """
        return _limited(self._batches(rows, batch_size), self.limit_train)

    def val_batches(self, rows: int, batch_size: int) -> int:
        """Batches that each device takes in a validation."""
        return _limited(self._batches(rows, batch_size), self.limit_val)

    def epochs(self, train_batches: int) -> float:
        """Epochs of the whole training, of so many batches each; the last one may be cut short."""
        most = self.max_epochs
        if most is None:
            most = EPOCHS if self.max_steps == -1 else None
        if self.max_steps == -1:
            assert most is not None
            return most
        by_steps = self.max_steps / max(1, math.ceil(train_batches / self.accumulate))
        return by_steps if most is None or most < 0 else min(most, by_steps)

    def validations(self, train_batches: int) -> float:
        """Validations of the whole training."""
        interval = self.check_interval
        every = interval if isinstance(interval, int) else max(1, int(train_batches * interval))
        epochs = self.epochs(train_batches)
        if every > train_batches:
            return epochs * train_batches / every
        return math.floor(epochs / self.validate_every) * (train_batches // every)

    def _batches(self, rows: int, batch_size: int) -> int:
        sampler = ResumableSampler(rows, shuffle=False, seed=0, rank=0, world_size=self.world_size)
        return math.ceil(len(sampler) / batch_size)


def _limited(batches: int, limit: int | float) -> int:
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)
