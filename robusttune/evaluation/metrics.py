"""Metrics kept apart by condition."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Accuracy, AveragePrecision, F1Score, MeanMetric, Metric

from robusttune.types import CONDITIONS, Facts


class ConditionMetrics(nn.Module):
    """One set of metrics a condition, gathered over all ranks when computed.

    Multi-class: ``accuracy`` and ``f1_macro``. Multi-label: ``f1_macro``, ``f1_micro`` (threshold 0.5) and
    ``average_precision`` (macro). Both: ``loss``, the mean cross-entropy. All but the loss are in [0, 1].
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.multilabel = facts.multilabel
        self.by_condition = nn.ModuleDict({condition.name: nn.ModuleDict(_metrics(facts)) for condition in CONDITIONS})

    @property
    def names(self) -> list[str]:
        """The keys of `compute`."""
        metrics = list(next(iter(self.by_condition.values())))  # type: ignore[call-overload]
        return [f"{condition}/{name}" for condition in [*self.by_condition, "mean"] for name in metrics]

    def update(self, condition: str, logits: Tensor, label: Tensor) -> None:
        """Add samples: logits (B, C), labels (B,) int64 or (B, C) in multi-label data."""
        if len(label) == 0:  # a batch of rows that do not count, which some metrics cannot take
            return
        metrics: nn.ModuleDict = self.by_condition[condition]  # type: ignore[assignment]
        logits = logits.float()
        for name, metric in metrics.items():
            if name == "loss":
                metric.update(sample_losses(logits, label))  # type: ignore[operator]
            elif self.multilabel:
                metric.update(logits.sigmoid(), label.long())  # type: ignore[operator]
            else:
                metric.update(logits, label)  # type: ignore[operator]

    def compute(self) -> dict[str, Tensor]:
        """``<condition>/<metric>`` for every condition, and ``mean/<metric>``, the mean over the conditions."""
        values: dict[str, Tensor] = {}
        for key in self.names:
            condition, name = key.split("/")
            if condition == "mean":
                values[key] = torch.stack([values[f"{c}/{name}"] for c in self.by_condition]).mean()
            else:
                values[key] = self.by_condition[condition][name].compute()  # type: ignore[index]
        return values

    def reset(self) -> None:
        for module in self.modules():
            if isinstance(module, Metric):
                module.reset()


def sample_losses(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each sample, (B,): categorical, or binary averaged over the classes in multi-label data."""
    if label.dim() == 1:
        return functional.cross_entropy(logits, label, reduction="none")
    return functional.binary_cross_entropy_with_logits(logits, label, reduction="none").mean(1)


def _metrics(facts: Facts) -> dict[str, Metric]:
    classes = len(facts.class_names)
    if facts.multilabel:
        return {
            "f1_macro": F1Score(task="multilabel", num_labels=classes, average="macro"),
            "f1_micro": F1Score(task="multilabel", num_labels=classes, average="micro"),
            "average_precision": AveragePrecision(task="multilabel", num_labels=classes, average="macro"),
            "loss": MeanMetric(),
        }
    return {
        "accuracy": Accuracy(task="multiclass", num_classes=classes, average="micro"),
        "f1_macro": F1Score(task="multiclass", num_classes=classes, average="macro"),
        "loss": MeanMetric(),
    }
