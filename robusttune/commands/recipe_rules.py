"""The rules of ``recipe: auto``: a model and its training, from the size of the training data.

On tables of up to a few thousand rows, models that are fitted at once were better than networks that are trained by
gradient steps, see the suite of small tables in ``tests/experiments``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any

from robusttune.counting import counted

AT_ONCE_ROWS = 5_000  # most rows that a model is fitted to at once
AT_ONCE_CELLS = 250_000  # most rows x classes: the time of such a fit grows with both
STEPS, EPOCHS = 1_500, 10  # a network is trained for at least as many
BATCH_SIZES = {2_000: 64, 20_000: 128}  # rows below the number: batch size
LARGEST_BATCH = 256  # of all larger data
VALIDATIONS = 20  # about as many during a training
CACHED_ROWS = 100_000  # most rows whose features are stored without being asked for: some 100 kB each
LOGGED = 20  # steps between two logged losses

# The optimizer of every network. It is named in all recipes, so that model.optimizer.lr is a setting.
OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3, "weight_decay": 0.05}}
FITTED_AT_ONCE = "fusion/stacking"  # overlay of the model for small data
TRAINED = "fusion/experts"  # overlay of the network for all other data
NAMES = {
    "Stacking": "stacking of logistic regression and kernel regression",
    "LogisticRegression": "logistic regression for each pattern of present modalities",
}  # of the models that are fitted at once, by class


@dataclass(frozen=True)
class Situation:
    """The data, and the settings of the user that a recipe depends on.

    Args:
        rows: Number of training samples, at least 1.
        classes: Number of classes, at least 1.
        fusion: Class name of the user's fusion model, or None if the recipe chooses it.
        needs_steps: Name of a setting of the user that a model that is fitted at once cannot follow, or None.
        random_inputs: True if the inputs of training differ from epoch to epoch, by augmentation or noise.
        drops_modalities: True if the user has set a modality dropout above 0.
        batch_size: Batch size of the user, or None.
        max_epochs: Number of epochs of the user, or None.
        max_steps: Number of steps of the user, or None.
    """

    rows: int
    classes: int
    fusion: str | None = None
    needs_steps: str | None = None
    random_inputs: bool = False
    drops_modalities: bool = False
    batch_size: int | None = None
    max_epochs: int | None = None
    max_steps: int | None = None


@dataclass(frozen=True)
class Recipe:
    """A model and its training.

    Attributes:
        overlay: Name of a packaged overlay with the model, or None for the model of the user.
        settings: Further settings, which are laid over it, by their names on the command line.
        summary: What was chosen, in words.
    """

    overlay: str | None
    settings: dict[str, Any] = field(default_factory=dict)
    summary: str = ""


def choose(situation: Situation) -> Recipe:
    """Choose a recipe.

    Args:
        situation: The data, and the user's settings.

    Example:
        >>> choose(Situation(rows=427, classes=15)).overlay
        'fusion/stacking'
        >>> choose(Situation(rows=60_000, classes=101)).settings["data.batch_size"]
        256
    """
    recipe = _fitted_at_once(situation) if _is_fitted_at_once(situation) else _trained(situation)
    folder = None if situation.random_inputs or situation.rows > CACHED_ROWS else "auto"
    inputs = {"data.batch_size": _batch_size(situation.rows), "data.cache.folder": folder}
    settings = {"model.optimizer": OPTIMIZER, **inputs, **recipe.settings}
    data = f"{counted(situation.rows, 'training row')}, {counted(situation.classes, 'class', 'classes')}"
    is_reason = situation.fusion is None and _is_small(situation) and situation.needs_steps is not None
    reason = f" (since {situation.needs_steps} is set)" if is_reason else ""
    cached = ", from features that are computed once" if folder else ""
    return Recipe(recipe.overlay, settings, f"{data}: {recipe.summary}{cached}{reason}")


def _is_small(situation: Situation) -> bool:
    return situation.rows <= AT_ONCE_ROWS and situation.rows * situation.classes <= AT_ONCE_CELLS


def _is_fitted_at_once(situation: Situation) -> bool:
    if situation.fusion is not None:
        return situation.fusion in NAMES
    return _is_small(situation) and situation.needs_steps is None


def _fitted_at_once(situation: Situation) -> Recipe:
    """Return the recipe of a model that is fitted before the first epoch, which then only validates and saves it."""
    name = NAMES[situation.fusion or "Stacking"]
    return Recipe(FITTED_AT_ONCE, {"model.calibrate": True}, f"{name}, fitted at once")


def _trained(situation: Situation) -> Recipe:
    """Return the recipe of a network that is trained by gradient steps: Experts, or the network of the user."""
    batch_size = situation.batch_size or _batch_size(situation.rows)
    batches = ceil(situation.rows / batch_size)
    epochs, interval = _length(situation, batches)
    settings: dict[str, Any] = {
        "trainer.max_epochs": epochs,
        "trainer.check_val_every_n_epoch": interval,
        "trainer.gradient_clip_val": 1.0,
        "trainer.log_every_n_steps": min(LOGGED, batches),
    }
    if situation.max_steps is not None:  # a number of epochs might end the training before
        del settings["trainer.max_epochs"]
    if situation.fusion is None and situation.drops_modalities:  # every_pattern takes its place, and refuses it
        settings["model.every_pattern"] = False
    steps = counted(situation.max_steps or epochs * batches, "step")
    length = f"{steps} in {counted(epochs, 'epoch')} of {counted(batches, 'batch', 'batches')} of {batch_size}"
    overlay = TRAINED if situation.fusion is None else None
    return Recipe(overlay, settings, f"{situation.fusion or 'Experts'}, {length}")


def _batch_size(rows: int) -> int:
    return next((size for below, size in BATCH_SIZES.items() if rows < below), LARGEST_BATCH)


def _length(situation: Situation, batches: int) -> tuple[int, int]:
    """Return the number of epochs, and the number of epochs between two validations, which divides it.

    So the last epoch is validated, too.
    """
    own = ceil(situation.max_steps / batches) if situation.max_steps is not None else situation.max_epochs
    epochs = own or max(EPOCHS, ceil(STEPS / batches))
    interval = max(1, epochs // VALIDATIONS)
    if own is None:
        return ceil(epochs / interval) * interval, interval
    return epochs, next(divisor for divisor in range(interval, 0, -1) if epochs % divisor == 0)
