"""Estimate the plan of a training run by measuring a few of its steps."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lightning.pytorch import Trainer

from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.models.classifier import ENCODERS
from robusttune.models.fitted import FittedNetwork
from robusttune.planning.extent import Extent
from robusttune.planning.inspection import Inspection
from robusttune.planning.measurement import (
    TrainingMeasurement,
    ValidationMeasurement,
    measure_training,
    measure_validation,
    row_count,
)
from robusttune.planning.plan import Disk, Memory, Model, Plan, Time, Traffic
from robusttune.planning.sampled_cache import Features, SampledCache
from robusttune.ranks import cores
from robusttune.tasks import FusionTask, RobustTask, ZeroShotTask
from robusttune.tasks.checkpoint import without_encoders
from robusttune.types import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero", "robusttune")


def estimate(task: RobustTask, data: ImageTextDataModule, trainer: Trainer, extent: Extent, steps: int) -> Plan:
    """Measure a few training steps and extrapolate the cost of the whole training run.

    Nothing is left on disk. The planned run may have several devices; the measurement uses the trainer's one.

    Args:
        task: Task to measure. A few steps of training change its weights.
        data: Data module of the training run. Its cache is replaced by a `SampledCache`, which reads the original
            cache and writes to a temporary folder only.
        trainer: Trainer with the settings of `TRAINER`.
        extent: Extent of the planned training run.
        steps: Number of training steps to measure. Fewer are measured if they are slow.

    Returns:
        Parameters, memory, disk space, durations and traffic of the planned run.

    Raises:
        RobustTuneError: The task trains nothing, or there is no batch to train on.
    """
    if isinstance(task, ZeroShotTask):
        raise RobustTuneError("ZeroShotTask trains nothing, so there is nothing to plan: give another model.class_path")
    network = task.classifier.network if isinstance(task, FusionTask) else None
    if isinstance(network, FittedNetwork):
        # Its one pass over the training samples is that of an epoch; the seconds of the fit are left out.
        network.fitted.fill_(True)
        extent = replace(extent, max_epochs=1, max_steps=-1, limit_train=1.0)
    with _quiet(), tempfile.TemporaryDirectory(prefix="robusttune-plan-") as folder:
        cache = None if data.feature_cache is None else SampledCache(data.feature_cache, Path(folder))
        data.feature_cache = cache
        _share_cores(data, extent, trainer)
        training = measure_training(task, data, trainer, extent, steps)
        features = [] if cache is None else [*cache.found]
        validation = measure_validation(task, data, trainer, extent, training.steps.seconds)
        rest = [] if cache is None else _other_splits(task, data, cache)
    inspection = training.inspection
    return Plan(
        task=type(task).__name__,
        extent=extent,
        batch_size=data.batch_size,
        classes=len(task.classifier.class_names),
        samples={split: rows for split in SPLITS if (rows := row_count(data, split))},
        device=str(trainer.strategy.root_device),
        model=_model(task, inspection),
        memory=Memory(
            inspection.weights,
            inspection.gradients,
            inspection.optimizer_state,
            inspection.saved.bytes,
            inspection.batch,
            inspection.peak,
        ),
        disk=Disk([*features, *rest], _own_bytes(task) + inspection.optimizer_state),
        time=_time(training, validation, features, extent),
        traffic=Traffic(inspection.gradients, validation.bytes),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence log messages below errors, because planning is not a run.

    Warnings about the data set are not lost: they were logged when it was read.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _share_cores(data: ImageTextDataModule, extent: Extent, trainer: Trainer) -> None:
    """Give the loader the number of workers that each device gets when several devices share the CPU cores.

    Nothing changes on the CPU, or if the user has set the number of workers.
    """
    settings = data.loaders.settings
    if settings.workers is None and extent.devices > 1 and trainer.strategy.root_device.type != "cpu":
        data.loaders.settings = replace(settings, workers=min(8, max(1, cores() // extent.devices)))


def _other_splits(task: RobustTask, data: ImageTextDataModule, cache: SampledCache) -> list[Features]:
    """Return the features that the cache would also hold for the test and predict samples."""
    before = len(cache.found)
    for stage in ("test", "predict"):
        if data.source_table(stage) is not None:
            data.setup(stage)
            data.fill_cache(stage, {name: task.classifier.encoder(name) for name in ENCODERS})
    return cache.found[before:]


def _model(task: RobustTask, inspection: Inspection) -> Model:
    trained = sum(weights.numel() for weights in task.parameters() if weights.requires_grad)
    frozen = {name: task.classifier.encoder(name).size for name in ENCODERS}
    return Model(trained, frozen, inspection.flops.trained, inspection.flops.frozen)


def _time(
    training: TrainingMeasurement, validation: ValidationMeasurement, features: Sequence[Features], extent: Extent
) -> Time:
    """Extrapolate the durations of epochs, validations and the whole run from the measurements."""
    step, validation_step = training.steps, validation.steps
    start = max(0.0, training.epoch_start - step.waiting)
    epoch = start + step.batches * step.seconds
    epochs = extent.epochs(step.batches)
    validations, validation_seconds = 0.0, 0.0
    if validation_step is not None:
        validations = extent.validations(step.batches)
        validation_seconds = validation_step.batches * validation_step.seconds + validation.metrics
    fill = sum(part.seconds for part in features) / extent.world_size
    return Time(
        step=step,
        epoch=epoch,
        validation_step=validation_step,
        validation=validation_seconds,
        metrics=validation.metrics,
        validations=validations,
        epochs=epochs,
        fill=fill,
        fit=fill + epochs * epoch + validations * validation_seconds,
    )


def _own_bytes(task: RobustTask) -> int:
    """Return the size in bytes of the task's tensors in a checkpoint, which leaves the frozen encoders out."""
    return sum(value.nbytes for value in without_encoders(task.state_dict()).values())
