"""How far metrics would be others with other test samples: 95 % intervals by the bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from robusttune.evaluation.bootstrap import interval, resampled_means
from robusttune.evaluation.f1 import Average, macro, macro_of_all, micro, weighted
from robusttune.evaluation.metrics import label_ranks, predicted_classes, sample_briers, sample_losses, samples_f1


class Parts(NamedTuple):
    """A metric that follows from means over samples.

    Attributes:
        values: (N, J), what each sample gives to each of the means.
        of: the metric, (R,), of means (R, J).
    """

    values: Tensor
    of: Callable[[Tensor], Tensor]


def resampled(parts: dict[str, Parts]) -> dict[str, Tensor]:
    """Of each metric its values in resamples, which are of the same samples wherever there are as many."""
    means = {
        id(part.values): resampled_means(part.values) for part in {id(p.values): p for p in parts.values()}.values()
    }
    return {name: part.of(means[id(part.values)]) for name, part in parts.items()}


def between(values: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """What the middle 95 % of resampled values (R,) lie between; nothing of those that no resample defines."""
    known = {name: of[~of.isnan()] for name, of in values.items()}
    return {name: interval(of) for name, of in known.items() if len(of)}


def multiclass_parts(logits: Tensor, label: Tensor) -> dict[str, Parts]:
    """Of logits (N, C) and labels (N,)."""
    classes = logits.shape[1]
    said, hot = predicted_classes(logits, multilabel=False), functional.one_hot(label, classes).bool()
    averages = _f1_parts(said, hot, {"macro": macro, "weighted": weighted})
    found = {"accuracy": _mean((said & hot).any(1)), **averages}
    if classes > 5:
        found["top5_accuracy"] = _mean(label_ranks(logits, label) <= 5)
    return found | trust_parts(logits, label)


def multilabel_parts(logits: Tensor, label: Tensor) -> dict[str, Parts]:
    """Of logits (N, C) and labels (N, C)."""
    said, hot = predicted_classes(logits, multilabel=True), label.bool()
    averages = _f1_parts(said, hot, {"macro": macro_of_all, "micro": micro, "weighted": weighted})
    return averages | {"f1_samples": _mean(samples_f1(said, hot)), **trust_parts(logits, label)}


def base_and_new_parts(logits: Tensor, label: Tensor, base: Tensor, unknown: Tensor) -> dict[str, Parts]:
    """As `base_and_new_metrics`."""
    kinds = []
    for group in (base, ~base):
        of_group = group[label]
        right = logits.masked_fill(~group, -torch.inf).argmax(1) == label
        kinds.append(torch.stack([of_group & right, of_group], 1).float())
    both = torch.cat(kinds, 1)

    def mean(means: Tensor) -> Tensor:
        accuracies = means[:, ::2] / means[:, 1::2]
        return 2 * accuracies.prod(1) / accuracies.sum(1).clamp(min=1e-12)

    return {
        "base_accuracy": Parts(kinds[0], lambda means: means[:, 0] / means[:, 1]),
        "new_accuracy": Parts(kinds[1], lambda means: means[:, 0] / means[:, 1]),
        "harmonic_mean": Parts(both, mean),
        "unknown_accuracy": _mean(unknown.argmax(1) == label),
        **trust_parts(unknown, label),
    }


def trust_parts(logits: Tensor, label: Tensor) -> dict[str, Parts]:
    """Of the metrics of `trust_metrics`, but for the calibration error: resamples only ever add to absolute values."""
    return {"brier": _mean(sample_briers(logits, label)), "loss": _mean(sample_losses(logits, label))}


def _f1_parts(said: Tensor, hot: Tensor, averages: dict[str, Average]) -> dict[str, Parts]:
    """Of classes said and true, (N, C) bool each."""
    counts = torch.cat([said & hot, said, hot], 1).float()  # the same for each, so that it is made once

    def of(average: Average, means: Tensor) -> Tensor:
        hits, predicted, actual = means.chunk(3, 1)
        return average(hits, predicted + actual, actual)

    return {f"f1_{name}": Parts(counts, partial(of, average)) for name, average in averages.items()}


def _mean(values: Tensor) -> Parts:
    return Parts(values.float().unsqueeze(1), lambda means: means[:, 0])
