"""Callbacks that measure real steps: of training, and of validation."""

from __future__ import annotations

from statistics import fmean, median, quantiles
from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from robusttune.planning import inspection

LEAST = 3  # steps that are measured, however long they take
SECONDS = 30.0  # after which no more than these are
WARM_UP = 3  # steps before these, after those of the `Inspection`
WARM_UP_SECONDS = 10.0  # of more of them, in which batches that loader workers had ready are used up


class BatchTimes:
    """Seconds by batch: of waiting until it is on the device, and of what is done with it."""

    def __init__(self) -> None:
        self.waiting: list[float] = []
        self.working: list[float] = []
        self._left = self._got = perf_counter()

    def leave(self) -> None:
        """From now on it is waited."""
        self._left = perf_counter()

    def got(self) -> float:
        """The batch is there; returns how long it was waited for."""
        self._got = perf_counter()
        return self._got - self._left

    def done(self, keep: bool) -> None:
        """The batch is done."""
        if keep:
            self.waiting.append(self._got - self._left)
            self.working.append(perf_counter() - self._got)
        self.leave()

    @property
    def wait(self) -> float:
        """The mean: workers hand over several batches together, and the next has to be waited for."""
        return fmean(self.waiting)

    @property
    def work(self) -> float:
        """The median."""
        return median(self.working)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Of waiting and working together, the lower and the upper one."""
        both = [sum(times) for times in zip(self.waiting, self.working, strict=True)]
        if len(both) == 1:
            return both[0], both[0]
        lower, _, upper = quantiles(both, n=4, method="inclusive")
        return lower, upper


class StepMeter(Callback):
    """Measures steps of training, and ends it when there are enough.

    Args:
        steps: to be measured; fewer, but some, if they take too long.

    Attributes:
        times: of the steps that were measured, but for those that began an epoch, unless there are no others.
        epoch_start: seconds from the beginning of the last epoch to its first batch.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.times = BatchTimes()
        self.epoch_start = 0.0
        self._workers = self._ahead = 0
        self._seen = 0
        self._since = 0.0  # the end of the inspection; then, that of the warm-up
        self._warm = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loader: Any = trainer.train_dataloader
        self._workers = loader.num_workers
        self._ahead = loader.num_workers * (loader.prefetch_factor or 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.times.leave()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        waited = self.times.got()
        if batch_idx == 0:
            self.epoch_start = waited

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.times.done(keep=self._warm and (batch_idx > 0 or trainer.num_training_batches == 1))
        self._seen += 1
        if self._seen == inspection.STEPS:
            self._since = perf_counter()
        elif not self._warm and self._is_warm():
            self._warm, self._since = True, perf_counter()
        # A step of the optimiser has to be among them: its state is measured, too.
        trainer.should_stop = trainer.should_stop or (self._has_enough() and trainer.global_step > 0)

    def _is_warm(self) -> bool:
        steps = self._seen - inspection.STEPS
        return steps >= WARM_UP and (steps >= self._ahead or perf_counter() - self._since > WARM_UP_SECONDS)

    def _has_enough(self) -> bool:
        measured = len(self.times.working)
        if measured >= LEAST and perf_counter() - self._since > SECONDS:
            return True
        return measured >= self.steps and measured % max(1, self._workers) == 0


class ValidationMeter(Callback):
    """Measures batches of a validation, but for the first, in which what is computed once is computed.

    Attributes:
        times: of the batches.
    """

    def __init__(self) -> None:
        self.times = BatchTimes()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.times.leave()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.times.got()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.times.done(keep=batch_idx > 0 or trainer.num_val_batches == [1])
