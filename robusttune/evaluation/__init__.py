"""Metrics, confidence intervals and tables of a model's predictions, per condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robusttune.evaluation.per_sample import sample_losses
from robusttune.evaluation.scores import Scores
from robusttune.lazy import lazy_attributes

if TYPE_CHECKING:
    from robusttune.evaluation.by_condition import ConditionMetrics

__all__ = ["ConditionMetrics", "Scores", "sample_losses"]

# Class probabilities and losses do not need torchmetrics.
__getattr__ = lazy_attributes(__name__, {"ConditionMetrics": "by_condition"})
