"""Temperatures and thresholds, which are fitted to the predictions of a validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from robusttune.corruption.conditions import Conditions
from robusttune.errors import RobustTuneError
from robusttune.evaluation import ConditionMetrics
from robusttune.models.classifier import Classifier
from robusttune.models.temperatures import VIEWS
from robusttune.ranks import on_rank_zero

Threshold = float | Literal["fitted"]


@dataclass(frozen=True)
class ValidationFit:
    """Temperatures and thresholds of a task, fitted in each validation of a fit.

    The sanity check before a fit, and other commands, fit nothing.

    Args:
        classifier: Classifier that keeps them.
        calibrate: True to fit temperatures.
        threshold: Threshold in (0, 1), or ``fitted``; see `RobustTask`.

    Raises:
        RobustTuneError: The threshold is out of its range.
    """

    classifier: Classifier
    calibrate: bool
    threshold: Threshold

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, str) and not 0 < self.threshold < 1:  # This form refuses NaN, too.
            raise RobustTuneError(f"model.threshold is {self.threshold}: give a probability in (0, 1), or fitted")
        if self.classifier.thresholds is not None and not isinstance(self.threshold, str):
            self.classifier.thresholds.values.fill_(self.threshold)

    def temperatures(self, trainer: Trainer) -> bool:
        """Return whether the validation that runs fits temperatures."""
        return self.calibrate and _is_in_fit(trainer)

    def thresholds(self, trainer: Trainer) -> bool:
        """Return whether the validation that runs fits thresholds."""
        return self.classifier.thresholds is not None and self.threshold == "fitted" and _is_in_fit(trainer)

    def conditions(self, conditions: Conditions, trainer: Trainer) -> Conditions:
        """Return the conditions with the views that the fit needs."""
        needed = self.temperatures(trainer) or self.thresholds(trainer)
        return conditions.with_views(VIEWS) if needed else conditions

    def fit(self, metrics: ConditionMetrics, trainer: Trainer) -> None:
        """Fit to the scores of a validation, see `fit_to_validation`."""
        temperatures, thresholds = self.temperatures(trainer), self.thresholds(trainer)
        if temperatures or thresholds:
            fit_to_validation(self.classifier, metrics, temperatures, thresholds)

    def overrule(self, checkpoint: dict[str, Any]) -> None:
        """Replace the thresholds in a checkpoint by the given one, if there is one."""
        if self.classifier.thresholds is not None and not isinstance(self.threshold, str):
            checkpoint.get("state_dict", {})["classifier.thresholds.values"] = self.classifier.thresholds.values.clone()

    def log_thresholds(self) -> None:
        """Log the thresholds of multi-label data."""
        if self.classifier.thresholds is not None:
            rank_zero_info(self.classifier.thresholds.describe())


def fit_to_validation(classifier: Classifier, metrics: ConditionMetrics, temperatures: bool, thresholds: bool) -> None:
    """Fit temperatures and thresholds to the scores of a validation. Every rank must call this.

    The metrics then count the classes that the fitted thresholds predict. Their logits stay as they are, so the
    thresholds are multiplied by the temperatures.

    Args:
        classifier: Classifier that keeps them.
        metrics: Metrics with the scores, before temperatures, in views that include `VIEWS`.
        temperatures: True to fit temperatures.
        thresholds: True to fit thresholds.
    """
    metrics.gather()
    views = metrics.conditions.views

    def fit_temperatures(_: list[None]) -> list[float]:
        """Fit the temperatures to the gathered scores. This runs on rank 0, which alone has them."""
        scores = metrics.gathered
        assert scores is not None
        return classifier.temperatures.fit(scores.logits, scores.label, scores.present, views)

    def fit_thresholds(_: list[None]) -> Tensor:
        """Fit the thresholds to the gathered scores, divided by the temperatures, on rank 0."""
        scores = metrics.gathered
        assert scores is not None
        assert classifier.thresholds is not None
        calibrated = scores.logits
        if temperatures:
            patterns = [view.patterns(scores.present) for view in views]
            divisors = classifier.temperatures.values.cpu()
            calibrated = scores.logits / divisors[torch.stack(patterns)].unsqueeze(2)
        return classifier.thresholds.fit(calibrated, scores.label, scores.present, views)

    if temperatures:
        classifier.temperatures.keep(on_rank_zero(None, fit_temperatures))
    if thresholds and classifier.thresholds is not None:
        classifier.thresholds.keep(on_rank_zero(None, fit_thresholds))
    if classifier.cuts is not None:
        scale = classifier.temperatures.values.unsqueeze(1) if temperatures else 1.0
        metrics.cuts = classifier.cuts * scale


def _is_in_fit(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking
