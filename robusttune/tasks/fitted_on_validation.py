"""Temperatures and thresholds, which are fitted to the predictions of a validation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from robusttune.evaluation import ConditionMetrics
from robusttune.models.classifier import Classifier
from robusttune.ranks import on_rank_zero

Threshold = float | Literal["fitted"]


def fit_to_validation(classifier: Classifier, metrics: ConditionMetrics, temperatures: bool, thresholds: bool) -> None:
    """Fit temperatures and thresholds to the scores of a validation. Every rank must call this.

    The metrics then count the classes that the fitted thresholds predict. Their logits stay as they are, so the
    thresholds are multiplied by the temperatures.

    Args:
        classifier: Classifier that keeps what is fitted.
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
