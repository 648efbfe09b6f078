"""The extent of a training run: numbers of batches, epochs and validations for a number of devices."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robusttune.data.sampler import ResumableSampler
from robusttune.tasks.validation_interval import epochs_between_validations

EPOCHS = 1000  # default of Lightning's Trainer if neither max_epochs nor max_steps is set


@dataclass(frozen=True)
class Extent:
    """The extent of a training run, in the terms of Lightning's Trainer.

    Attributes:
        devices: Number of devices per node.
        nodes: Number of machines.
        max_epochs: Largest number of epochs; -1 for no limit, None if it is not set.
        max_steps: Largest number of optimizer steps; -1 for no limit.
        accumulate: Number of batches per device and optimizer step.
        limit_train: Batches per training epoch, as a number (int) or as a fraction in [0, 1] (float).
        limit_val: Batches per validation, as a number (int) or as a fraction in [0, 1] (float).
        validate_every: Number of epochs from one validation to the next.
        check_interval: Batches from one validation to the next within an epoch, as a number (int) or as a fraction of
            the epoch in [0, 1] (float).

    Example:
        >>> extent = Extent(devices=2, max_epochs=3)
        >>> extent.train_batches(rows=1000, batch_size=50)
        10
        >>> extent.epochs(train_batches=10), extent.validations(train_batches=10)
        (3, 3)
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
        """Return the number of devices on all nodes together."""
        return self.devices * self.nodes

    def train_batches(self, rows: int, batch_size: int) -> int:
        """Return the number of batches that each device processes in a training epoch.

        Args:
            rows: Number of samples in the training split.
            batch_size: Number of samples per batch and device.
        """
        return _limited(self._batches(rows, batch_size), self.limit_train)

    def val_batches(self, rows: int, batch_size: int) -> int:
        """Return the number of batches that each device processes in a validation.

        Args:
            rows: Number of samples in the validation split.
            batch_size: Number of samples per batch and device.
        """
        return _limited(self._batches(rows, batch_size), self.limit_val)

    def epochs(self, train_batches: int) -> float:
        """Return the number of epochs of the whole training run.

        The number is fractional if ``max_steps`` ends the run within an epoch.

        Args:
            train_batches: Number of batches per device and epoch.
        """
        limit = self.max_epochs
        if limit is None:
            limit = EPOCHS if self.max_steps == -1 else None
        if self.max_steps == -1:
            assert limit is not None
            return limit
        by_steps = self.max_steps / max(1, math.ceil(train_batches / self.accumulate))
        return by_steps if limit is None or limit < 0 else min(limit, by_steps)

    def validations(self, train_batches: int) -> float:
        """Return the number of validations in the whole training run.

        Args:
            train_batches: Number of batches per device and epoch.
        """
        interval = self.check_interval
        every = interval if isinstance(interval, int) else max(1, int(train_batches * interval))
        epochs = self.epochs(train_batches)
        if every > train_batches:
            return epochs * train_batches / every
        between = self.validate_every
        if between == 1 and not isinstance(interval, int) and interval == 1.0:
            steps = max(1, math.ceil(train_batches / self.accumulate))
            between = epochs_between_validations(math.ceil(epochs), steps)
        return math.floor(epochs / between) * (train_batches // every)

    def _batches(self, rows: int, batch_size: int) -> int:
        """Return the number of batches per device before any limit, with the sampler's padding rows."""
        sampler = ResumableSampler(rows, shuffle=False, seed=0, rank=0, world_size=self.world_size)
        return math.ceil(len(sampler) / batch_size)


def _limited(batches: int, limit: int | float) -> int:
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)
