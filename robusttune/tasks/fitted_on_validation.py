"""Temperatures and thresholds, which are fitted to the predictions of a validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from robusttune.corruption.conditions import Conditions
from robusttune.errors import RobustTuneError
from robusttune.evaluation import ConditionMetrics
from robusttune.models.classifier import Classifier
from robusttune.models.temperatures import VIEWS, Blocks, Temperatures

Threshold = float | Literal["fitted"]


@dataclass(frozen=True)
class ValidationFit:
    """Temperatures and thresholds of a task, fitted in each validation of a fit.

    The sanity check before a fit, and other commands, fit nothing.

    Args:
        classifier: Classifier that keeps them.
        calibrate: True to fit temperatures.
        threshold: Threshold in (0, 1), or ``fitted``; see `RobustTask`.
        in_fit: False if validations fit nothing, because the task fits both to other samples.

    Raises:
        RobustTuneError: The threshold is out of its range.
    """

    classifier: Classifier
    calibrate: bool
    threshold: Threshold
    in_fit: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, str) and not 0 < self.threshold < 1:  # This form refuses NaN, too.
            raise RobustTuneError(f"model.threshold is {self.threshold}: give a probability in (0, 1), or fitted")
        if self.classifier.thresholds is not None and not isinstance(self.threshold, str):
            self.classifier.thresholds.values.fill_(self.threshold)

    def temperatures(self, trainer: Trainer) -> bool:
        """Return whether the validation that runs fits temperatures."""
        return self.calibrate and self._fits(trainer)

    def thresholds(self, trainer: Trainer) -> bool:
        """Return whether the validation that runs fits thresholds."""
        return self.classifier.thresholds is not None and self.threshold == "fitted" and self._fits(trainer)

    def conditions(self, conditions: Conditions, trainer: Trainer) -> Conditions:
        """Return the conditions with the views that the fit needs."""
        needed = self.temperatures(trainer) or self.thresholds(trainer)
        return conditions.with_views(VIEWS) if needed else conditions

    def fit(self, metrics: ConditionMetrics, trainer: Trainer) -> None:
        """Fit to the scores of a validation, see `fit_to_validation`."""
        temperatures, thresholds = self.temperatures(trainer), self.thresholds(trainer)
        if temperatures or thresholds:
            fit_to_validation(self.classifier, metrics, temperatures, thresholds)

    def fitted(self, blocks: Blocks) -> Fitted:
        """Return temperatures and thresholds of the task, fitted to scores; see `fit_to_scores`."""
        thresholds = self.classifier.thresholds is not None and self.threshold == "fitted"
        return fit_to_scores(self.classifier, blocks, self.calibrate, thresholds)

    def _fits(self, trainer: Trainer) -> bool:
        """Return whether the validation that runs can fit something."""
        return self.in_fit and trainer.state.fn == "fit" and not trainer.sanity_checking

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
        metrics: Metrics with the scores of this rank, before temperatures, in views that include `VIEWS`.
        temperatures: True to fit temperatures.
        thresholds: True to fit thresholds.
    """

    def blocks(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Start a pass over the samples that can show a pattern."""
        return metrics.blocks_of_view(VIEWS[number], number)

    fit_to_scores(classifier, blocks, temperatures, thresholds).keep(classifier)
    if classifier.cuts is not None:
        scale = classifier.temperatures.values.unsqueeze(1) if temperatures else 1.0
        metrics.cuts = classifier.cuts * scale


class Fitted(NamedTuple):
    """Fitted temperatures and thresholds, see `Temperatures.fit` and `Thresholds.fit`; None for what was not fitted."""

    temperatures: list[float] | None
    thresholds: Tensor | None

    def keep(self, classifier: Classifier) -> None:
        """Keep them in a classifier."""
        if self.temperatures is not None:
            classifier.temperatures.keep(self.temperatures)
        if self.thresholds is not None and classifier.thresholds is not None:
            classifier.thresholds.keep(self.thresholds)


def fit_to_scores(classifier: Classifier, blocks: Blocks, temperatures: bool, thresholds: bool) -> Fitted:
    """Fit temperatures and thresholds to scores, the thresholds after the temperatures. Every rank must call this.

    Args:
        classifier: Classifier, which does not change.
        blocks: Function that starts a pass over this rank's samples that can show a pattern: logits before
            temperatures, and labels, see `Temperatures.fit`.
        temperatures: True to fit temperatures.
        thresholds: True to fit thresholds.
    """
    divisors, fitted = Temperatures(), None
    if temperatures:
        fitted = divisors.fit(blocks)
    if not thresholds or classifier.thresholds is None:
        return Fitted(fitted, None)

    def calibrated(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Start a pass over the calibrated logits of a pattern."""
        return ((logits / divisors.values[number], label) for logits, label in blocks(number))

    return Fitted(fitted, classifier.thresholds.fit(calibrated))
