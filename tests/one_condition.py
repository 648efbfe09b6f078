"""The metrics of one condition from logits, in blocks of uneven size."""

from __future__ import annotations

import torch
from torch import Tensor

from robusttune.evaluation.classes import Classes, Shown
from robusttune.evaluation.metrics import Measured, measure


def measured(
    logits: Tensor, label: Tensor, multilabel: bool = False, base: Tensor | None = None, unknown: Tensor | None = None
) -> Measured:
    """Measure samples, given as logits and labels of N samples, and ``unknown`` logits if there are new classes."""
    count = logits.shape[1]
    everything = torch.ones(count, dtype=torch.bool)
    classes = Classes([f"{number}" for number in range(count)], everything if base is None else base, multilabel)
    others = logits if unknown is None else unknown
    cut = len(label) // 3
    blocks = [
        Shown(label[rows], logits[rows], others[rows], torch.zeros(())) for rows in (slice(cut), slice(cut, None))
    ]
    return measure(lambda: iter(blocks), classes)


def multiclass_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """All metrics of samples with one label."""
    return measured(logits, label).metrics


def multilabel_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """All metrics of samples with several labels."""
    return measured(logits, label, multilabel=True).metrics


def base_and_new_metrics(logits: Tensor, label: Tensor, base: Tensor, unknown: Tensor) -> dict[str, float]:
    """All metrics of samples of base and of new classes."""
    return measured(logits, label, base=base, unknown=unknown).metrics
