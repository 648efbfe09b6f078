"""Ranking metrics: area under the ROC curve and average precision."""

from __future__ import annotations

import torch
from torch import Tensor

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
    areas = torch.cat([_areas(scores[:, columns], label[:, columns]) for columns in blocks], 1)
    auroc, precision = areas.mean(1).tolist()
    return {"auroc": auroc, "average_precision": precision}


def _areas(scores: Tensor, label: Tensor) -> Tensor:
    """Return the area under the ROC curve and the average precision of each class, shape (2, C), float64.

    Both follow from one curve. torchmetrics computes it class by class, which takes several times as long.
    """
    scores, order = scores.sort(0, descending=True)
    # Equal scores are one point of the curve: each row gets the counts at the last row of its tie.
    places = torch.arange(len(scores), device=scores.device).unsqueeze(1)
    tied = torch.zeros_like(scores, dtype=torch.bool)
    tied[:-1] = scores[:-1] == scores[1:]
    last = places.masked_fill(tied, len(scores)).flip(0).cummin(0).values.flip(0)
    hits = label.gather(0, order).double().cumsum(0).gather(0, last)
    misses = last + 1 - hits
    origin = hits.new_zeros(1, hits.shape[1])
    new_hits, new_misses = (counts.diff(dim=0, prepend=origin) for counts in (hits, misses))
    areas = (new_misses * (hits - new_hits / 2)).sum(0) / (hits[-1] * misses[-1])
    return torch.stack([areas, (new_hits * hits / (last + 1)).sum(0) / hits[-1]])
