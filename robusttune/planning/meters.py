"""Callbacks that measure the time of real training steps and validation batches."""

from __future__ import annotations

from statistics import fmean, median, quantiles
from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from robusttune.planning import inspection

LEAST = 3  # number of measured steps, however long they take
SECONDS = 30.0  # time after which no more than LEAST steps are measured
WARM_UP = 3  # steps between the inspected and the measured ones
WARM_UP_SECONDS = (
    10.0  # limit for a longer warm-up, which uses up the batches that the loader's workers have prefetched
)


class BatchTimes:
    """The seconds per batch that a loop waits for the batch, and those that it works on it.

    The loop calls `leave`, `got` and `done` in this order for each batch; `done` already starts the wait for the next.

    Attributes:
        waiting: Seconds until each batch was on the device.
        working: Seconds of work on each batch.
    """

    def __init__(self) -> None:
        self.waiting: list[float] = []
        self.working: list[float] = []
        self._wait_start = self._work_start = perf_counter()

    def leave(self) -> None:
        """Start waiting for the next batch."""
        self._wait_start = perf_counter()

    def got(self) -> float:
        """Start working on the batch; return the seconds of waiting for it."""
        self._work_start = perf_counter()
        return self._work_start - self._wait_start

    def done(self, keep: bool) -> None:
        """Finish the batch and start waiting for the next one.

        Args:
            keep: Flag to record the batch's times.
        """
        if keep:
            self.waiting.append(self._work_start - self._wait_start)
            self.working.append(perf_counter() - self._work_start)
        self.leave()

    @property
    def wait(self) -> float:
        """Return the mean seconds of waiting.

        It is a mean because the workers of a loader hand over several batches together: most waits are near 0, and a
        few are long.
        """
        return fmean(self.waiting)

    @property
    def work(self) -> float:
        """Return the median seconds of work."""
        return median(self.working)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Return the lower and the upper quartile of waiting and working together, in seconds."""
        both = [sum(times) for times in zip(self.waiting, self.working, strict=True)]
        if len(both) == 1:
            return both[0], both[0]
        lower, _, upper = quantiles(both, n=4, method="inclusive")
        return lower, upper


class StepMeter(Callback):
    """A callback that measures training steps and stops the training when it has measured enough.

    Args:
        steps: Number of steps to measure. After `SECONDS` the number falls to `LEAST`.

    Attributes:
        times: Times of the measured steps. The first step of an epoch is left out unless an epoch has only one.
        epoch_start: Seconds from the beginning of the last epoch to its first batch.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.times = BatchTimes()
        self.epoch_start = 0.0
        self._workers = self._prefetched = 0
        self._steps_done = 0
        self._phase_start = 0.0  # end of the inspection; after the warm-up, end of the warm-up
        self._warm = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read how many workers the loader has and how many batches they prefetch."""
        loader: Any = trainer.train_dataloader
        self._workers = loader.num_workers
        self._prefetched = loader.num_workers * (loader.prefetch_factor or 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start waiting for the first batch of the epoch."""
        self.times.leave()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the time of the step's work; record the start of the epoch."""
        waited = self.times.got()
        if batch_idx == 0:
            self.epoch_start = waited

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Finish the step, move on from inspection to warm-up to measurement, and stop the training at the end."""
        self.times.done(keep=self._warm and (batch_idx > 0 or trainer.num_training_batches == 1))
        self._steps_done += 1
        if self._steps_done == inspection.STEPS:
            self._phase_start = perf_counter()
        elif not self._warm and self._is_warm():
            self._warm, self._phase_start = True, perf_counter()
        # The optimizer must have made a step, because the size of its state is measured, too.
        trainer.should_stop = trainer.should_stop or (self._has_enough() and trainer.global_step > 0)

    def _is_warm(self) -> bool:
        """Return whether the warm-up is over: enough steps, and no prefetched batches left or no time left."""
        steps = self._steps_done - inspection.STEPS
        return steps >= WARM_UP and (steps >= self._prefetched or perf_counter() - self._phase_start > WARM_UP_SECONDS)

    def _has_enough(self) -> bool:
        """Return whether enough steps are measured; each worker must have delivered equally many of the batches."""
        measured = len(self.times.working)
        if measured >= LEAST and perf_counter() - self._phase_start > SECONDS:
            return True
        return measured >= self.steps and measured % max(1, self._workers) == 0


class ValidationMeter(Callback):
    """A callback that measures the batches of a validation.

    The first batch is left out because it includes work that is done only once, unless it is the only one.

    Attributes:
        times: Times of the measured batches.
    """

    def __init__(self) -> None:
        self.times = BatchTimes()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start waiting for the first batch."""
        self.times.leave()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Start the time of the batch's work."""
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
        """Finish the batch and record its times."""
        self.times.done(keep=batch_idx > 0 or trainer.num_val_batches == [1])
