"""How well a model does, condition by condition."""

from robusttune.evaluation.by_condition import ConditionMetrics
from robusttune.evaluation.metrics import sample_losses
from robusttune.evaluation.scores import Scores

__all__ = ["ConditionMetrics", "Scores", "sample_losses"]
