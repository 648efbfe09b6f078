"""The plan of a training, made from a few of its steps."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, Trainer

from robusttune.data import ImageTextDataModule
from robusttune.encoders import FrozenEncoder
from robusttune.errors import RobustTuneError
from robusttune.evaluation import ConditionMetrics
from robusttune.planning.alone import computing_metrics, loading
from robusttune.planning.extent import Extent
from robusttune.planning.inspection import Inspection
from robusttune.planning.meters import BatchTimes, StepMeter, ValidationMeter
from robusttune.planning.plan import Disk, Memory, Model, Plan, Steps, Time, Traffic
from robusttune.planning.sampled_cache import Features, SampledCache
from robusttune.ranks import cores
from robusttune.tasks import RobustTask, ZeroShotTask
from robusttune.tasks.base import ENCODERS
from robusttune.types import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")
VALIDATION_SECONDS = 15.0  # that measured batches of a validation should take
VALIDATION_BATCHES = 3, 21  # of them, at least and at most, the first of which does not count
LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero", "robusttune")

TRAINER: dict[str, Any] = {  # of a Trainer to measure with: one process that leaves nothing, and ends when told to
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "max_epochs": 1_000_000,  # by which schedules reckon
    "max_steps": -1,
    "min_epochs": None,
    "min_steps": None,
    "max_time": None,
    "limit_train_batches": None,  # all
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


class _Training(NamedTuple):
    """What was measured of training."""

    steps: Steps
    epoch_start: float
    inspection: Inspection


class _Validation(NamedTuple):
    """What was measured of a validation; no steps where there is none."""

    steps: Steps | None = None
    metrics: float = 0.0
    bytes: int = 0


def estimate(task: RobustTask, data: ImageTextDataModule, trainer: Trainer, extent: Extent, steps: int) -> Plan:
    """Measure some steps, and tell from them what all of it takes. Nothing is left on disk.

    Args:
        task: is trained a little.
        data: its cache is looked at, not written to.
        trainer: with the settings of `TRAINER`.
        extent: of the training that is planned.
        steps: that are measured, fewer if they are slow.

    Raises:
        RobustTuneError: nothing is trained, or there is no batch to train on.
    """
    if isinstance(task, ZeroShotTask):
        raise RobustTuneError("ZeroShotTask trains nothing, so there is nothing to plan: give another model.class_path")
    with _quiet(), tempfile.TemporaryDirectory(prefix="robusttune-plan-") as folder:
        cache = None if data.cache is None else SampledCache(data.cache, Path(folder))
        data.cache = cache
        _share_cores(data, extent, trainer)
        training = _train(task, data, trainer, extent, steps)
        features = [] if cache is None else [*cache.found]
        validation = _validate(task, data, trainer, extent, training.steps.seconds)
        rest = [] if cache is None else _other_splits(task, data, cache)
    inspection = training.inspection
    return Plan(
        task=type(task).__name__,
        extent=extent,
        batch_size=data.batch_size,
        classes=len(task.class_names),
        samples={split: rows for split in SPLITS if (rows := _rows(data, split))},
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
    """Without what is told of a run: it is none. What is wrong with the data was told before."""
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
    """As many loader workers as a device has where there are several; on the CPU the default takes care of itself."""
    if data.workers is None and extent.devices > 1 and trainer.strategy.root_device.type != "cpu":
        data.workers = min(8, max(1, cores() // extent.devices))


def _train(task: RobustTask, data: ImageTextDataModule, trainer: Trainer, extent: Extent, steps: int) -> _Training:
    batches = extent.train_batches(_rows(data, "train"), data.batch_size)
    if batches == 0:
        raise RobustTuneError("trainer.limit_train_batches leaves no batch to train on: raise it")
    meter, inspection = StepMeter(steps), Inspection()
    _add(trainer, meter, inspection)
    trainer.fit(task, datamodule=data)
    return _Training(_steps(meter.times, data.train_dataloader(), batches), meter.epoch_start, inspection)


def _validate(
    task: RobustTask, data: ImageTextDataModule, trainer: Trainer, extent: Extent, step: float
) -> _Validation:
    """Some batches, as many as may take `VALIDATION_SECONDS` if each takes as long as a step of training."""
    least, most = VALIDATION_BATCHES
    trainer.limit_val_batches = max(least, min(most, 1 + int(VALIDATION_SECONDS / step)))
    rows = _rows(data, "val")
    if extent.val_batches(rows, 1) == 0:
        return _Validation()
    meter = ValidationMeter()
    _add(trainer, meter)
    trainer.validate(task, datamodule=data, verbose=False)
    loader = data.val_dataloader()
    assert loader.batch_size is not None
    batches = extent.val_batches(rows, loader.batch_size)
    if batches == 0:
        return _Validation()
    seen = min(rows, batches * loader.batch_size * extent.world_size)
    conditions = data.conditions("val")
    metrics = ConditionMetrics(task.facts, conditions, task.class_names)
    logits = 4 * len(conditions.views) * len(task.class_names)
    return _Validation(_steps(meter.times, loader, batches), computing_metrics(metrics, seen), seen * logits)


def _steps(times: BatchTimes, loader: Any, batches: int) -> Steps:
    alone = loading(loader)
    seconds = max(times.wait + times.work, alone or 0.0)
    return Steps(seconds, times.quartiles, len(times.working), times.wait, times.work, alone, batches)


def _other_splits(task: RobustTask, data: ImageTextDataModule, cache: SampledCache) -> list[Features]:
    """What a cache would take of samples to test and to predict."""
    before = len(cache.found)
    for stage in ("test", "predict"):
        if data.given(stage) is not None:
            data.setup(stage)
            data.fill_cache(stage, {name: _encoder(task, name) for name in ENCODERS})
    return cache.found[before:]


def _model(task: RobustTask, inspection: Inspection) -> Model:
    trained = sum(weights.numel() for weights in task.parameters() if weights.requires_grad)
    frozen = {name: _encoder(task, name).size for name in ENCODERS}
    return Model(trained, frozen, inspection.flops.trained, inspection.flops.frozen)


def _time(training: _Training, validation: _Validation, features: Sequence[Features], extent: Extent) -> Time:
    step, checked = training.steps, validation.steps
    start = max(0.0, training.epoch_start - step.waiting)
    epoch = start + step.batches * step.seconds
    epochs = extent.epochs(step.batches)
    validations = 0.0 if checked is None else extent.validations(step.batches)
    one = 0.0 if checked is None else checked.batches * checked.seconds + validation.metrics
    fill = sum(part.seconds for part in features) / extent.world_size
    return Time(
        step=step,
        epoch=epoch,
        validation_step=checked,
        validation=one,
        metrics=validation.metrics,
        validations=validations,
        epochs=epochs,
        fill=fill,
        fit=fill + epochs * epoch + validations * one,
    )


def _add(trainer: Trainer, *callbacks: Callback) -> None:
    trainer.callbacks += callbacks  # type: ignore[attr-defined]


def _rows(data: ImageTextDataModule, split: Split) -> int:
    table = data.records(split)
    return 0 if table is None else len(table)


def _own_bytes(task: RobustTask) -> int:
    """Of what a checkpoint has of the task: all but the encoders."""
    own = (value for name, value in task.state_dict().items() if not name.startswith(ENCODERS))
    return sum(value.nbytes for value in own)


def _encoder(task: RobustTask, name: str) -> FrozenEncoder:
    encoder: FrozenEncoder = getattr(task, name)
    return encoder
