"""Sums over samples, and the metrics that follow from them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.evaluation.classes import Classes
from robusttune.evaluation.exact import as_integers, from_integers
from robusttune.evaluation.f1 import macro, macro_of_all, macro_recall, micro, weighted
from robusttune.evaluation.outcomes import Outcomes
from robusttune.ranks import total_over_ranks


class Sums(NamedTuple):
    """Sums over the samples of all ranks, for R weightings of the samples; R is 1 where each sample counts once.

    Attributes:
        samples: Sum of the weights, shape (R,).
        values: Weighted sums of `Outcomes.values` by name, shape (R,).
        hits: Weight of the right predictions of each class, shape (R, C).
        predicted: Weight of the predictions of each class, shape (R, C).
        actual: Weight of the samples with each class, shape (R, C).
    """

    samples: Tensor
    values: dict[str, Tensor]
    hits: Tensor
    predicted: Tensor
    actual: Tensor


def sums_of(outcomes: Outcomes, label: Tensor, classes: Classes) -> Sums:
    """Add the outcomes of all ranks, each sample once. Every rank must call this.

    The sums are exact, so they do not depend on the number of ranks or the order of the samples.

    Args:
        outcomes: Outcomes of this rank's samples.
        label: Labels of this rank's samples, shape (N,) or (N, C).
        classes: Classes of the evaluation.
    """
    count, names = len(classes.names), [*outcomes.values]
    columns = torch.stack([as_integers(value).sum(0) for value in outcomes.values.values()])
    predictions = [outcomes.predicted[outcomes.hits], outcomes.predicted]
    counts = [torch.bincount(indices.long(), minlength=count) for indices in predictions]
    counts.append(label.long().sum(0) if classes.multilabel else torch.bincount(label, minlength=count))
    own = torch.cat([torch.tensor([len(label)]), *counts, columns.flatten()])
    samples, hits, predicted, actual, columns = torch.split(
        total_over_ranks(own), [1, count, count, count, 2 * len(names)]
    )
    values = dict(zip(names, from_integers(columns.view(-1, 2)).unsqueeze(1), strict=True))
    return Sums(samples.double(), values, *(part.double().unsqueeze(0) for part in (hits, predicted, actual)))


def metrics_of(sums: Sums, classes: Classes) -> dict[str, Tensor]:
    """Compute the metrics that follow from sums over samples.

    Args:
        sums: Sums over the samples.
        classes: Classes of the evaluation.

    Returns:
        Values by metric, shape (R,), float64. They are NaN where a metric is not defined.
    """
    found = {name: values / sums.samples for name, values in sums.values.items()}
    if classes.mixed:
        base, new = (found.pop(f"{group}_right") / found.pop(group) for group in ("base", "new"))
        harmonic = 2 * base * new / (base + new).clamp(min=1e-12)
        return {"base_accuracy": base, "new_accuracy": new, "harmonic_mean": harmonic, **found}
    averages = {"f1_macro": macro_of_all, "f1_micro": micro, "f1_weighted": weighted}
    if not classes.multilabel:
        averages = {"balanced_accuracy": macro_recall, "f1_macro": macro, "f1_weighted": weighted}
    both = sums.predicted + sums.actual
    return found | {name: average(sums.hits, both, sums.actual) for name, average in averages.items()}
