"""How well a model does, condition by condition."""

from robusttune.evaluation.metrics import ConditionMetrics, sample_losses

__all__ = ["ConditionMetrics", "sample_losses"]
