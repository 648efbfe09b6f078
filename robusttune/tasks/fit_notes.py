"""Notes before a fit: few optimiser steps, classes with few samples, few samples to choose the checkpoint by, and more.

A network with prototypes for patterns of modalities that no training sample has gets one, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

from robusttune.counting import counted
from robusttune.data import ImageTextDataModule
from robusttune.data.balance import training_sizes
from robusttune.data.records import presence
from robusttune.data.sources import Shapes
from robusttune.models.prototypes import GROUPS, LONE_IMAGE, LONE_TEXT, PrototypeHead
from robusttune.types import Split

if TYPE_CHECKING:
    from robusttune.tasks.base import RobustTask

LEAST_STEPS = 500  # On small tables, 80 steps lose 0.05 to 400 of them, and 400 steps 0.01 to 1,500.
SMALL_BATCH = 32
LEAST_SAMPLES = 5  # of a class: what five folds of a cross-validation need
LEAST_VALIDATION_SAMPLES = 100  # With fewer, the standard error of an accuracy may exceed 0.05.
NAMED = 3  # classes that a note names


def notes_before_fit(task: RobustTask) -> list[str]:
    """Return notes on what may be too little for a good model, each with a remedy. Every rank must call this.

    There are none for runs that are small on purpose: few-shot fits, subsets, limited batches and generated scenes.

    Args:
        task: Task at the start of a fit.
    """
    trainer = task.trainer
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ImageTextDataModule) or _is_small_on_purpose(data):
        return []
    if task.learns_by_steps and not reads_all_batches(trainer):
        return []
    notes = [
        _few_steps(trainer, data) if task.learns_by_steps else None,
        few_samples_note(training_sizes(task.facts)),
        _few_to_choose_by(trainer, data),
        _untrained_prototypes(task, data),
    ]
    return [note for note in notes if note is not None]


def reads_all_batches(trainer: Trainer) -> bool:
    """Return whether no setting of the Trainer limits the batches of training and validation."""
    limits: list[int | float] = [trainer.limit_train_batches, trainer.limit_val_batches]
    return not any(isinstance(limit, int) or limit < 1 for limit in limits)  # An int is a number of batches.


def few_samples_note(sizes: Mapping[str, int]) -> str | None:
    """Return a note on classes with few training samples, or None if there are none.

    Args:
        sizes: Number of training samples by class name.

    Example:
        >>> few_samples_note({"pie": 300, "soup": 2, "tea": 1})
        "2 of 3 classes have fewer than 5 training samples ('tea' 1, 'soup' 2): add samples, or merge classes"
    """
    few = sorted((size, name) for name, size in sizes.items() if size < LEAST_SAMPLES)
    if not few:
        return None
    named = ", ".join(f"{name!r} {size}" for size, name in few[:NAMED])
    return (
        f"{len(few)} of {counted(len(sizes), 'class', 'classes')} {'has' if len(few) == 1 else 'have'} fewer than "
        f"{LEAST_SAMPLES} training samples ({named}{', ...' * (len(few) > NAMED)}): add samples, or merge classes"
    )


def _is_small_on_purpose(data: ImageTextDataModule) -> bool:
    """Return whether the samples are few because a setting says so, or generated, as those of the demo."""
    return data.splits.shots is not None or data.splits.subset is not None or isinstance(data.source, Shapes)


def _few_steps(trainer: Trainer, data: ImageTextDataModule) -> str | None:
    """Return a note if the whole fit has few optimiser steps, unless their number is given."""
    steps, epochs = trainer.estimated_stepping_batches, trainer.max_epochs
    if trainer.max_steps != -1 or epochs is None or not 0 < steps < LEAST_STEPS:
        return None
    remedy = f"raise trainer.max_epochs to {math.ceil(LEAST_STEPS * epochs / steps)}"
    if data.batch_size > SMALL_BATCH:
        per_step = SMALL_BATCH * trainer.world_size * trainer.accumulate_grad_batches
        needed = math.ceil(LEAST_STEPS / math.ceil(_rows(data, "train") / per_step))
        more = f" and raise trainer.max_epochs to {needed}" if needed > epochs else ""
        remedy += f", or lower data.batch_size to {SMALL_BATCH}{more}"
    return f"{counted(int(steps), 'optimiser step')} in all {'is' if steps == 1 else 'are'} few: {remedy}"


def _few_to_choose_by(trainer: Trainer, data: ImageTextDataModule) -> str | None:
    """Return a note if the best of several checkpoints is chosen by few samples."""
    rows, every, epochs = _rows(data, "val"), trainer.check_val_every_n_epoch, trainer.max_epochs
    interval: int | float = trainer.val_check_interval
    at_ends = isinstance(interval, float) and interval == 1.0  # of epochs; an int is a number of batches
    is_single = at_ends and every is not None and epochs is not None and epochs < 2 * every
    is_chosen = any(getattr(callback, "monitor", None) is not None for callback in trainer.checkpoint_callbacks)
    if rows >= LEAST_VALIDATION_SAMPLES or is_single or not is_chosen:
        return None
    remedy = "add validation samples"
    if data.source_table("val") is None:
        remedy = f"raise data.splits.val_fraction from {data.splits.val_fraction:g}, or give a validation table"
    return (
        f"{counted(rows, 'validation sample')} {'is' if rows == 1 else 'are'} few to choose the best checkpoint by, "
        f"since the standard error of an accuracy on them is about {math.sqrt(0.25 / rows):.2f}: {remedy}"
    )


def _untrained_prototypes(task: RobustTask, data: ImageTextDataModule) -> str | None:
    """Return a note if a network has prototypes of images alone, or of texts alone, that no training sample trains."""
    head = getattr(getattr(task.classifier, "network", None), "head", None)
    if not isinstance(head, PrototypeHead) or getattr(task, "every_pattern", False):
        return None
    rows, dropout = data.rows("train"), data.training.modality_dropout
    if rows is None:  # a stream, whose samples are not known
        return None
    counts = presence(rows)
    samples = {  # or a probability of some
        LONE_IMAGE: counts["image_only"] or (dropout is not None and dropout.text_dropout),
        LONE_TEXT: counts["text_only"] or (dropout is not None and dropout.image_dropout),
    }
    trained = tuple(group for group in head.settings.groups if samples.get(group, True))
    if trained == head.settings.groups:
        return None
    names = {LONE_IMAGE: "an image", LONE_TEXT: "a text"}
    lacking = " or ".join(names[group] for group in head.settings.groups if group not in trained)
    missing = next(name for name, groups in GROUPS.items() if groups == trained)
    return (
        f"no training sample has {lacking} alone, whose prototypes learn nothing: set model.fusion.prototypes.missing "
        f"to {missing} and share_untrained to true, or let training samples lack modalities by data.missing"
    )


def _rows(data: ImageTextDataModule, split: Split) -> int:
    """Return the number of samples of a split that a fit has."""
    rows = data.rows(split)
    assert rows is not None, "a fit has training and validation samples"
    return len(rows)
