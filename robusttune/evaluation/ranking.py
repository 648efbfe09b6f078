"""Metrics of how samples are ranked, all classes at once."""

from __future__ import annotations

import torch
from torch import Tensor

CLASSES = 64  # at a time, for the sake of memory


def ranking_metrics(shares: Tensor, label: Tensor) -> dict[str, float]:
    """Area under the ROC curve (``auroc``) and ``average_precision``, macro.

    Each class is told apart from all others; those of which all samples are, or none is, are left out.

    Args:
        shares: (N, C), ties count as ties.
        label: (N, C) bool.

    Returns:
        Both in [0, 1]; not a number where no class is left.
    """
    of = label.any(0) & ~label.all(0)
    columns = torch.split(of.nonzero().squeeze(1), CLASSES)
    if not bool(of.any()):
        return {"auroc": float("nan"), "average_precision": float("nan")}
    parts = [_by_class(shares[:, some], label[:, some]) for some in columns]
    areas, precisions = (torch.cat(values) for values in zip(*parts, strict=True))
    return {"auroc": float(areas.mean()), "average_precision": float(precisions.mean())}


def _by_class(shares: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """(C,) each: area under the ROC curve and average precision."""
    ranked, order = shares.sort(0, descending=True)
    hits = label.gather(0, order).double().cumsum(0)
    misses = torch.arange(1, len(hits) + 1, dtype=hits.dtype).unsqueeze(1) - hits
    # The curve has a point where the next score is another one: of those that tie, after the last.
    point = torch.cat([ranked[1:] != ranked[:-1], torch.ones_like(label[:1])])
    hits, misses = (torch.where(point, counts, 0).cummax(0).values for counts in (hits, misses))
    more_hits, more_misses = (counts.diff(dim=0, prepend=torch.zeros_like(counts[:1])) for counts in (hits, misses))
    area = (more_misses * (hits - more_hits / 2)).sum(0) / (hits[-1] * misses[-1])
    return area, (more_hits * hits / (hits + misses).clamp(min=1)).sum(0) / hits[-1]
