"""95 % bootstrap confidence intervals of metrics over the samples of all ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusttune.evaluation.bootstrap import PER_HASH, RESAMPLES, interval, poisson_weights
from robusttune.evaluation.classes import Classes
from robusttune.evaluation.outcomes import Outcomes
from robusttune.evaluation.sums import Sums, metrics_of
from robusttune.ranks import total_over_ranks

CHUNK = 4_000_000  # largest number of weights, and of sums, in one block: 32 MB as float64


def bootstrapped(
    conditions: Mapping[str, Outcomes],
    label: Tensor,
    hashes: NDArray[np.uint64],
    classes: Classes,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Tensor]]:
    """Bootstrap the metrics of some conditions, which share their resamples. Every rank must call this.

    Args:
        conditions: Outcomes of this rank's N samples, by condition.
        label: Labels of the samples, shape (N,) or (N, C). An index of -1 stands for none of the classes.
        hashes: Hashes of the samples' ids, shape (N,), see `id_hashes`.
        classes: Classes of the evaluation.
        resamples: Number of resamples R.
        seed: Seed of the resamples.

    Returns:
        Values in all resamples, shape (R,), float64, by condition and metric; NaN where a metric is not defined.
    """
    found: dict[str, dict[str, list[Tensor]]] = {name: {} for name in conditions}
    sums_of_a_resample = (2 * len(conditions) + 1) * len(classes.names)
    step = max(1, min(resamples, CHUNK // sums_of_a_resample) // PER_HASH) * PER_HASH
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        for name, sums in _resampled(conditions, label, hashes, classes, (first, count, seed)):
            for metric, values in metrics_of(sums, classes).items():
                found[name].setdefault(metric, []).append(values)
    return {name: {metric: torch.cat(parts) for metric, parts in row.items()} for name, row in found.items()}


def confidence_intervals(values: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Return the 95 % percentile interval of each metric.

    Args:
        values: Resampled values by metric, shape (R,). NaN values, in resamples where the metric is undefined, are
            ignored.

    Returns:
        Lower and upper end by metric. A metric that is undefined in all resamples is left out.
    """
    defined = {name: value[~value.isnan()] for name, value in values.items()}
    return {name: interval(value) for name, value in defined.items() if len(value)}


def _resampled(
    conditions: Mapping[str, Outcomes],
    label: Tensor,
    hashes: NDArray[np.uint64],
    classes: Classes,
    which: tuple[int, int, int],
) -> Iterator[tuple[str, Sums]]:
    """Yield the sums of each condition in the resamples that ``which`` gives: the first, their number, and the seed."""
    first, count, seed = which
    names = {name: [*outcomes.values] for name, outcomes in conditions.items()}
    samples = torch.zeros(count, dtype=torch.float64)
    values = torch.zeros(sum(map(len, names.values())), count, dtype=torch.float64)
    of_classes = torch.zeros(2 * len(conditions) + 1, len(classes.names), count)
    for start in range(0, len(label), max(1, CHUNK // count)):
        rows = slice(start, min(start + max(1, CHUNK // count), len(label)))
        weights = poisson_weights(hashes[rows], first, count, seed).double()
        samples += weights.sum(0)
        for own, outcomes in zip(_split(values, names), conditions.values(), strict=True):
            own += torch.stack([value[rows].double() for value in outcomes.values.values()]) @ weights
        if not classes.mixed:  # No metric of base and new classes needs them.
            _add_classes(of_classes, conditions, label, rows, weights.float())
    samples, values, of_classes = (total_over_ranks(part) for part in (samples, values, of_classes))
    actual = of_classes[-1].T.double()
    for number, (name, own) in enumerate(zip(conditions, _split(values, names), strict=True)):
        hits, predicted = of_classes[2 * number].T.double(), of_classes[2 * number + 1].T.double()
        yield name, Sums(samples, dict(zip(names[name], own, strict=True)), hits, predicted, actual)


def _split(values: Tensor, names: Mapping[str, list[str]]) -> Sequence[Tensor]:
    """Return views of the rows that belong to each condition, as many as it has names."""
    parts: Sequence[Tensor] = torch.split(values, [len(own) for own in names.values()])
    return parts


def _add_classes(sums: Tensor, conditions: Mapping[str, Outcomes], label: Tensor, rows: slice, weights: Tensor) -> None:
    """Add the weights of some samples to the sums of the classes that they have and that are predicted for them.

    Args:
        sums: Sums to add to, shape (2 K + 1, C, R): hits and predictions of each condition, and labels. They are whole
            numbers, which float32 holds exactly up to 2^24.
        conditions: Outcomes of all samples, by condition.
        label: Labels of all samples.
        rows: Samples to add.
        weights: Their weights, shape (n, R).
    """
    ends = torch.tensor([rows.start, rows.stop], dtype=torch.int32)
    for number, outcomes in enumerate(conditions.values()):
        own = slice(*torch.searchsorted(outcomes.rows, ends).tolist())
        _add(sums[2 * number + 1], outcomes.predicted[own], outcomes.rows[own] - rows.start, weights)
        hits = outcomes.hits[own]
        _add(sums[2 * number], outcomes.predicted[own][hits], outcomes.rows[own][hits] - rows.start, weights)
    own_label = label[rows]
    samples, actual = own_label.nonzero().T if label.dim() == 2 else (torch.arange(len(own_label)), own_label)
    _add(sums[-1], actual, samples, weights)


def _add(sums: Tensor, classes: Tensor, samples: Tensor, weights: Tensor) -> None:
    """Add the weights (n, R) of samples to the sums (C, R) of their classes; a class of -1 is none."""
    known = classes >= 0
    sums.index_add_(0, classes[known], weights[samples[known]])
