"""A comparison of the best checkpoint with logistic regression, at the end of a fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng

from robusttune.callbacks.best_checkpoint import BestCheckpoint
from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.evaluation import ConditionMetrics
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.models import LinearNetwork, LogisticRegression
from robusttune.models.fitted import TrainingFeatures
from robusttune.models.temperatures import Blocks
from robusttune.models.thresholds import Thresholds
from robusttune.ranks import on_rank_zero
from robusttune.tasks import FusionTask
from robusttune.tasks.at_once import features_of, fit_network
from robusttune.tasks.fit_notes import reads_all_batches
from robusttune.tasks.fitted_on_validation import Fitted, fit_to_scores

MOST_ROWS = 3_000  # Up to here, the regressions take seconds; with more, they may take a minute.
MOST_LABELS = 100_000  # rows x classes
T = TypeVar("T")


class LinearBaseline(Callback):
    """A callback that prints the score of the best checkpoint beside that of logistic regression, in one line.

    It fits the regressions of `LogisticRegression` to the cached features of the training samples, and evaluates them
    on the validation samples, under the conditions and with the metric that select the best checkpoint. Nothing of the
    fit changes: neither weights and random numbers, nor checkpoints and logged metrics. An error is a warning.

    It does nothing for large data, without a feature cache or a best checkpoint, with limited batches, with low-rank
    adaptation of an encoder, and for networks that optimiser steps do not train. Every rank takes part.

    Example:
        >>> LinearBaseline().state_key  # it has no state in checkpoints
        'LinearBaseline'
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit and evaluate the regressions, and print the line. Lightning skips this after an interrupted fit."""
        best = next((each for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)), None)
        if best is None or best.monitor is None or best.best_model_score is None or not _is_cheap(trainer, pl_module):
            return
        assert isinstance(pl_module, FusionTask)
        try:
            with isolate_rng():
                value = score_of_linear_model(pl_module, best.monitor)
        except Exception as error:  # A comparison must not fail the fit.
            rank_zero_warn(f"no comparison with logistic regression, which has failed ({error}); the fit is complete")
            return
        if not math.isnan(value):
            rank_zero_info(comparison(best.monitor, float(best.best_model_score), value))


def comparison(monitor: str, best: float, linear: float) -> str:
    """Describe the scores in one line, with a remedy if logistic regression is better.

    Args:
        monitor: Metric that both scores are values of.
        best: Score of the best checkpoint.
        linear: Score of logistic regression.

    Example:
        >>> comparison("val/mean/accuracy", 0.872, 0.851)
        'val/mean/accuracy 0.872 (best checkpoint) against 0.851 for logistic regression'
    """
    line = f"{monitor} {best:.3f} (best checkpoint) against {linear:.3f} for logistic regression"
    is_better = linear < best if monitor.endswith(LOWER_IS_BETTER) else linear > best
    if not is_better:
        return line
    return f"{line}, which is better: try --config configs/fusion/stacking.yaml, or raise trainer.max_epochs"


def score_of_linear_model(task: FusionTask, monitor: str) -> float:
    """Fit logistic regressions to the training samples of a task's Trainer, and return their validation score.

    Every rank must call this.

    Args:
        task: Task in a fit, with a feature cache.
        monitor: Metric, such as ``val/mean/accuracy``.

    Raises:
        RobustTuneError: The features cannot be read, or are not finite. It is raised on all ranks.
    """
    trainer = task.trainer
    data: ImageTextDataModule = trainer.datamodule  # type: ignore[attr-defined]
    widths = task.classifier.image_encoder.widths, task.classifier.text_encoder.widths
    network = trainer.precision_plugin.convert_module(LogisticRegression().build(*widths, task.facts))
    network.to(trainer.strategy.root_device).eval()
    assert isinstance(network, LinearNetwork)
    fits_thresholds = task.validation_fit.thresholds(trainer)

    def calibrate(blocks: Blocks) -> Fitted:
        """Fit thresholds alone, which do not depend on temperatures."""
        return fit_to_scores(task.classifier, blocks, False, fits_thresholds)

    own = _on_every_rank(lambda: TrainingFeatures.join([*features_of(task, network, data.complete_dataloader())]))
    _, fitted = fit_network(network, own, data.seed, calibrate)
    metrics = _on_every_rank(lambda: _evaluated(task, network, data))
    if fitted.thresholds is not None:
        thresholds = Thresholds(len(metrics.classes.names))
        thresholds.keep(fitted.thresholds)
        metrics.cuts = thresholds.cuts
    return metrics.compute()[monitor.removeprefix("val/")]


@torch.no_grad()
def _evaluated(task: FusionTask, network: LinearNetwork, data: ImageTextDataModule) -> ConditionMetrics:
    """Return metrics with the predictions of a network for the validation samples of this rank."""
    metrics, trainer = task.new_metrics("val"), task.trainer
    views = metrics.conditions.views
    for each in data.val_dataloader():
        batch = trainer.strategy.batch_to_device(each)
        with trainer.precision_plugin.forward_context():
            logits = task.classifier.fuse(batch, views, network).logits.reshape(len(views), len(batch), -1)
        present = torch.stack([batch.image_present, batch.text_present], 1)
        metrics.update(batch.sample_id, batch.label, present, task.classifier.adjusted(logits))
    return metrics


def _is_cheap(trainer: Trainer, task: LightningModule) -> bool:
    """Return whether the regressions take seconds, and say something about the fit."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(task, FusionTask) or not task.learns_by_steps or not isinstance(data, ImageTextDataModule):
        return False
    if data.image_encoder.is_adapted or data.text_encoder.is_adapted:
        return False
    train = data.rows("train")
    if data.feature_cache is None or train is None or trainer.fast_dev_run or not reads_all_batches(trainer):  # type: ignore[attr-defined]
        return False
    return len(train) <= MOST_ROWS and len(train) * len(task.facts.class_names) <= MOST_LABELS


def _on_every_rank(fn: Callable[[], T]) -> T:
    """Call a function that does not communicate. If it fails on one rank, all raise an error, so that none waits."""
    found, problem = [], None
    try:
        found.append(fn())
    except Exception as error:
        problem = str(error) or type(error).__name__

    def check(problems: list[str | None]) -> None:
        """Raise the first error."""
        first = next((each for each in problems if each is not None), None)
        if first is not None:
            raise RobustTuneError(first)

    on_rank_zero(problem, check)
    return found[0]
