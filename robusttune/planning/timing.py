"""Timings that need no model: loading batches, and computing the metrics of a validation."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
from torch.nn import functional

from robusttune.evaluation import ConditionMetrics

SECONDS = 5.0  # time after which no more batches are loaded
ROWS = 2000  # most samples for which metrics are computed; the time for more samples is extrapolated


def loading(loader: Any) -> float | None:
    """Measure how fast the loader's workers produce batches when the model never makes them wait.

    Args:
        loader: Data loader, a `torch.utils.data.DataLoader`.

    Returns:
        Mean seconds per batch without the first batch, or None if the loader has no worker processes.
    """
    if not loader.num_workers:
        return None
    batches = iter(loader)
    start = first = perf_counter()
    loaded = 0
    for loaded, _ in enumerate(batches):  # the first batch is not counted, because it includes the workers' start
        now = perf_counter()
        first = now if loaded == 0 else first
        # Workers hand over their batches together, so only a multiple of their number gives a fair mean.
        if loaded and loaded % loader.num_workers == 0 and now - start > SECONDS:
            break
    return (perf_counter() - first) / loaded if loaded else perf_counter() - start


def computing_metrics(metrics: ConditionMetrics, rows: int) -> float:
    """Measure the seconds that it takes to compute metrics for ``rows`` samples with random predictions.

    At most `ROWS` samples are measured. The time for more samples is extrapolated in proportion to their number.

    Args:
        metrics: Metrics without any samples. They cannot be used for anything else afterwards.
        rows: Number of samples, at least 1.
    """
    measured_rows, classes = min(rows, ROWS), len(metrics.classes.names)
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(classes, (measured_rows,), generator=generator)
    if metrics.classes.multilabel:
        label = functional.one_hot(label, classes).float()
    logits = torch.randn(len(metrics.conditions.views), measured_rows, classes, generator=generator)
    ids = [str(row) for row in range(measured_rows)]
    metrics.update(ids, label, torch.ones(measured_rows, 2, dtype=torch.bool), logits)
    start = perf_counter()
    metrics.compute()
    return (perf_counter() - start) * rows / measured_rows
