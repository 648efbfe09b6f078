"""How well a model does, condition by condition."""

from robusttune.evaluation.metrics import ConditionMetrics, Scores, sample_losses

__all__ = ["ConditionMetrics", "Scores", "sample_losses"]
