"""What can be timed without a model: the loader, and the metrics of a validation."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
from torch.nn import functional

from robusttune.evaluation import ConditionMetrics

SECONDS = 5.0  # in which batches are loaded
ROWS = 2000  # for which metrics are computed; what more rows take follows from it


def loading(loader: Any) -> float | None:
    """Seconds a batch that the loader's workers take if nobody makes them wait; None where it has no workers."""
    if not loader.num_workers:
        return None
    batches = iter(loader)
    begun = first = perf_counter()
    loaded = 0
    for loaded, _ in enumerate(batches):  # the first one counts as none
        now = perf_counter()
        first = now if loaded == 0 else first
        # All workers' turns are whole: they hand over their batches together.
        if loaded and loaded % loader.num_workers == 0 and now - begun > SECONDS:
            break
    return (perf_counter() - first) / loaded if loaded else perf_counter() - begun


def computing_metrics(metrics: ConditionMetrics, rows: int) -> float:
    """Seconds to compute metrics for so many samples, with random answers.

    Args:
        metrics: that nothing was added to; it is used up.
        rows: samples, in proportion to which it takes time.
    """
    few, classes = min(rows, ROWS), len(metrics.class_names)
    random = torch.Generator().manual_seed(0)
    label = torch.randint(classes, (few,), generator=random)
    if metrics.multilabel:
        label = functional.one_hot(label, classes).float()
    logits = torch.randn(len(metrics.conditions.views), few, classes, generator=random)
    metrics.update([str(row) for row in range(few)], label, torch.ones(few, 2, dtype=torch.bool), logits)
    begun = perf_counter()
    metrics.compute()
    return (perf_counter() - begun) * rows / few
