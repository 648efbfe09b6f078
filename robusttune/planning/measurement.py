"""Measurements of a few real steps of training and validation."""

from __future__ import annotations

from typing import Any, NamedTuple

from lightning.pytorch import Callback, Trainer

from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.evaluation import ConditionMetrics
from robusttune.planning.extent import Extent
from robusttune.planning.inspection import Inspection
from robusttune.planning.meters import BatchTimes, StepMeter, ValidationMeter
from robusttune.planning.plan import Steps
from robusttune.planning.timing import computing_metrics, loading
from robusttune.tasks import RobustTask
from robusttune.types import Split

VALIDATION_SECONDS = 15.0  # intended duration of the measured validation batches
VALIDATION_BATCHES = 3, 21  # least and most validation batches to run; the first one is not measured

# Settings of the Trainer that measures: it runs in one process, writes nothing, and ends when a callback stops it.
TRAINER: dict[str, Any] = {
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "max_epochs": 1_000_000,  # learning rate schedules need a number
    "max_steps": -1,
    "min_epochs": None,
    "min_steps": None,
    "max_time": None,
    "limit_train_batches": None,  # no limit
    "limit_val_batches": 0,
    "overfit_batches": 0.0,
    "val_check_interval": None,
    "num_sanity_val_steps": 0,
    "fast_dev_run": False,
    "logger": False,
    "profiler": None,
    "callbacks": None,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class TrainingMeasurement(NamedTuple):
    """Measurements of training.

    Attributes:
        steps: Times of the steps.
        epoch_start: Seconds from the beginning of an epoch until its first batch is there.
        inspection: Operations and memory of the steps.
    """

    steps: Steps
    epoch_start: float
    inspection: Inspection


class ValidationMeasurement(NamedTuple):
    """Measurements of a validation; the defaults stand for a run without validation.

    Attributes:
        steps: Times of the batches; None if there is no validation.
        metrics: Seconds to compute the metrics on one device.
        bytes: Bytes that each rank receives from the others: hashes of ids, and, for each condition, classes and scores
            of the labels and two counts for each of them.
    """

    steps: Steps | None = None
    metrics: float = 0.0
    bytes: int = 0


def measure_training(
    task: RobustTask, data: ImageTextDataModule, trainer: Trainer, extent: Extent, steps: int
) -> TrainingMeasurement:
    """Train for a few steps and measure them.

    Args:
        task: Task to train. Its weights change.
        data: Data module with the training split.
        trainer: Trainer with the settings of `TRAINER`.
        extent: Extent of the planned training run.
        steps: Number of steps to measure. Fewer are measured if they are slow.

    Raises:
        RobustTuneError: There is no batch to train on.
    """
    batches = extent.train_batches(row_count(data, "train"), data.batch_size)
    if batches == 0:
        raise RobustTuneError("trainer.limit_train_batches leaves no batch to train on: raise it")
    meter, inspection = StepMeter(steps), Inspection()
    _add(trainer, meter, inspection)
    trainer.fit(task, datamodule=data)
    return TrainingMeasurement(_steps(meter.times, data.train_dataloader(), batches), meter.epoch_start, inspection)


def measure_validation(
    task: RobustTask, data: ImageTextDataModule, trainer: Trainer, extent: Extent, step: float
) -> ValidationMeasurement:
    """Measure a few validation batches.

    Args:
        task: Task to validate.
        data: Data module with the validation split.
        trainer: Trainer that has trained the task.
        extent: Extent of the planned training run.
        step: Seconds per training step. The number of batches is chosen so that they would take about
            `VALIDATION_SECONDS` at this speed.
    """
    minimum, maximum = VALIDATION_BATCHES
    trainer.limit_val_batches = max(minimum, min(maximum, 1 + int(VALIDATION_SECONDS / step)))
    rows = row_count(data, "val")
    if extent.val_batches(rows, 1) == 0:
        return ValidationMeasurement()
    meter = ValidationMeter()
    _add(trainer, meter)
    trainer.validate(task, datamodule=data, verbose=False)
    loader = data.val_dataloader()
    assert loader.batch_size is not None
    batches = extent.val_batches(rows, loader.batch_size)
    if batches == 0:
        return ValidationMeasurement()
    validated_rows = min(rows, batches * loader.batch_size * extent.world_size)
    conditions = data.conditions("val")
    metrics = ConditionMetrics(task.facts, conditions, task.classifier.class_names)
    sent = 8 + len(conditions.all) * (8 + 16)  # bytes for one sample with one label
    return ValidationMeasurement(
        _steps(meter.times, loader, batches),
        computing_metrics(metrics, validated_rows),
        validated_rows * sent,
    )


def _steps(times: BatchTimes, loader: Any, batches: int) -> Steps:
    """Summarise measured batches; a batch cannot take less time than the loader needs for it."""
    loading_seconds = loading(loader)
    seconds = max(times.wait + times.work, loading_seconds or 0.0)
    return Steps(seconds, times.quartiles, len(times.working), times.wait, times.work, loading_seconds, batches)


def _add(trainer: Trainer, *callbacks: Callback) -> None:
    trainer.callbacks += callbacks  # type: ignore[attr-defined]


def row_count(data: ImageTextDataModule, split: Split) -> int:
    """Return the number of samples in a split, 0 if the data set lacks it."""
    rows = data.rows(split)
    return 0 if rows is None else len(rows)
