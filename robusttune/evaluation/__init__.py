"""Metrics, confidence intervals and tables of a model's predictions, per condition."""

from robusttune.evaluation.by_condition import ConditionMetrics
from robusttune.evaluation.metrics import sample_losses
from robusttune.evaluation.scores import Scores

__all__ = ["ConditionMetrics", "Scores", "sample_losses"]
