"""Ranking metrics (AUROC and average precision), computed for all classes at once."""

from __future__ import annotations

import torch
from torch import Tensor

CLASSES = 64  # number of classes computed at once, to limit the memory


def ranking_metrics(shares: Tensor, label: Tensor) -> dict[str, float]:
    """Compute the macro averages of the area under the ROC curve and of average precision.

    Each class is compared with all others. Classes that all samples have, or none, are left out.

    Args:
        shares: Probabilities or other scores, shape (N, C). Equal scores are treated as ties.
        label: True classes, shape (N, C), bool.

    Returns:
        Values of ``auroc`` and ``average_precision`` in [0, 1], or NaN if no class is left.

    Example:
        >>> import torch
        >>> scores, label = torch.tensor([[0.9], [0.2], [0.4]]), torch.tensor([[True], [False], [True]])
        >>> ranking_metrics(scores, label)
        {'auroc': 1.0, 'average_precision': 1.0}
    """
    defined = label.any(0) & ~label.all(0)
    blocks = torch.split(defined.nonzero().squeeze(1), CLASSES)
    if not bool(defined.any()):
        return {"auroc": float("nan"), "average_precision": float("nan")}
    parts = [_by_class(shares[:, columns], label[:, columns]) for columns in blocks]
    areas, precisions = (torch.cat(values) for values in zip(*parts, strict=True))
    return {"auroc": float(areas.mean()), "average_precision": float(precisions.mean())}


def _by_class(shares: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the area under the ROC curve and the average precision of each class, shape (C,) each."""
    ranked, order = shares.sort(0, descending=True)
    hits = label.gather(0, order).double().cumsum(0)
    misses = torch.arange(1, len(hits) + 1, dtype=hits.dtype).unsqueeze(1) - hits
    # The curve has one point per different score: tied samples share the point after the last of them.
    is_point = torch.cat([ranked[1:] != ranked[:-1], torch.ones_like(label[:1])])
    hits, misses = (torch.where(is_point, counts, 0).cummax(0).values for counts in (hits, misses))
    more_hits, more_misses = (counts.diff(dim=0, prepend=torch.zeros_like(counts[:1])) for counts in (hits, misses))
    area = (more_misses * (hits - more_hits / 2)).sum(0) / (hits[-1] * misses[-1])
    return area, (more_hits * hits / (hits + misses).clamp(min=1)).sum(0) / hits[-1]
