"""Ranking metrics: area under the ROC curve and average precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.classification import multilabel_roc

CLASSES = 64  # number of classes whose curves are in memory at once


def ranking_metrics(scores: Tensor, label: Tensor) -> dict[str, float]:
    """Compute the macro averages of the area under the ROC curve and of average precision.

    Each class is compared with all others. Classes that all samples have, or none, are left out, because neither
    metric is defined for them; torchmetrics' own averages count some of them as 0.

    Args:
        scores: Probabilities, shape (N, C), in [0, 1]. Equal scores are treated as ties.
        label: True classes, shape (N, C), bool.

    Returns:
        Values of ``auroc`` and ``average_precision`` in [0, 1], or NaN if no class is left.

    Example:
        >>> import torch
        >>> scores, label = torch.tensor([[0.9], [0.2], [0.4]]), torch.tensor([[True], [False], [True]])
        >>> ranking_metrics(scores, label)
        {'auroc': 1.0, 'average_precision': 1.0}
    """
    defined = (label.any(0) & ~label.all(0)).nonzero().squeeze(1)
    if not len(defined):
        return {"auroc": float("nan"), "average_precision": float("nan")}
    blocks = torch.split(defined, CLASSES)
    areas = [values for columns in blocks for values in _areas(scores[:, columns], label[:, columns])]
    auroc, precision = torch.tensor(areas, dtype=torch.float64).mean(0).tolist()
    return {"auroc": auroc, "average_precision": precision}


def _areas(scores: Tensor, label: Tensor) -> list[tuple[float, float]]:
    """Return the area under the ROC curve and the average precision of each class.

    Both follow from one curve. The functions of torchmetrics for single metrics would sort the scores twice.
    """
    false_rates, true_rates, _ = multilabel_roc(scores, label.long(), label.shape[1], validate_args=False)
    positives = label.sum(0).tolist()
    found = []
    for false_rate, true_rate, positive in zip(false_rates, true_rates, positives, strict=True):
        false_rate, true_rate = false_rate.double(), true_rate.double()
        hits, misses = true_rate * positive, false_rate * (len(label) - positive)
        precision = (hits / (hits + misses))[1:]  # The curve starts without predicted positives.
        found.append((float(torch.trapezoid(true_rate, false_rate)), float(true_rate.diff() @ precision)))
    return found
