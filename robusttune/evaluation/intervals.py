"""95 % bootstrap confidence intervals of metrics over test samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from robusttune.evaluation.bootstrap import interval, resampled_means
from robusttune.evaluation.f1 import Average, macro, macro_of_all, macro_recall, micro, weighted
from robusttune.evaluation.per_sample import label_ranks, sample_briers, sample_losses, samples_f1
from robusttune.predictions import predicted_classes


class MeanBasedMetric(NamedTuple):
    """A metric that is a function of means over samples.

    Attributes:
        values: Values of each sample for each of J means, shape (N, J).
        of: Function that computes the metric, shape (R,), from means, shape (R, J).

    Example:
        >>> import torch
        >>> accuracy = MeanBasedMetric(torch.tensor([[1.0], [0.0]]), of=lambda means: means[:, 0])
        >>> accuracy.of(accuracy.values.mean(0, keepdim=True))
        tensor([0.5000])
    """

    values: Tensor
    of: Callable[[Tensor], Tensor]


def bootstrap_metrics(parts: dict[str, MeanBasedMetric]) -> dict[str, Tensor]:
    """Bootstrap each metric. Metrics over the same number of samples share their resample indices.

    Args:
        parts: Metrics by name.

    Returns:
        Values of each metric in all resamples, shape (R,).
    """
    means = {
        id(part.values): resampled_means(part.values) for part in {id(p.values): p for p in parts.values()}.values()
    }
    return {name: part.of(means[id(part.values)]) for name, part in parts.items()}


def confidence_intervals(values: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Return the 95 % percentile interval of each metric.

    Args:
        values: Resampled values by metric, shape (R,). NaN values, in resamples where the metric is undefined, are
            ignored.

    Returns:
        Lower and upper end by metric. A metric that is undefined in all resamples is left out.
    """
    defined = {name: value[~value.isnan()] for name, value in values.items()}
    return {name: interval(value) for name, value in defined.items() if len(value)}


def multiclass_parts(logits: Tensor, label: Tensor) -> dict[str, MeanBasedMetric]:
    """Return the metrics of multi-class data that follow from means over samples.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), int64.

    Example:
        >>> import torch
        >>> logits, label = torch.eye(3).repeat(20, 1), torch.arange(3).repeat(20)
        >>> confidence_intervals(bootstrap_metrics(multiclass_parts(logits, label)))["accuracy"]
        (1.0, 1.0)
    """
    classes = logits.shape[1]
    predicted, actual = predicted_classes(logits, multilabel=False), functional.one_hot(label, classes).bool()
    averages = _class_parts(
        predicted, actual, {"balanced_accuracy": macro_recall, "f1_macro": macro, "f1_weighted": weighted}
    )
    found = {"accuracy": _mean((predicted & actual).any(1)), **averages}
    if classes > 5:
        found["top5_accuracy"] = _mean(label_ranks(logits, label) <= 5)
    return found | probability_metric_parts(logits, label)


def multilabel_parts(logits: Tensor, label: Tensor, cuts: Tensor | float = 0.0) -> dict[str, MeanBasedMetric]:
    """Return the metrics of multi-label data that follow from means over samples.

    Args:
        logits: Class scores, shape (N, C).
        label: Labels, shape (N, C), 0 or 1.
        cuts: Logits from which a class is predicted, see `predicted_classes`.
    """
    predicted, actual = predicted_classes(logits, True, cuts), label.bool()
    averages = _class_parts(predicted, actual, {"f1_macro": macro_of_all, "f1_micro": micro, "f1_weighted": weighted})
    return averages | {"f1_samples": _mean(samples_f1(predicted, actual)), **probability_metric_parts(logits, label)}


def base_and_new_parts(logits: Tensor, label: Tensor, base: Tensor, unknown: Tensor) -> dict[str, MeanBasedMetric]:
    """Return the metrics of `base_and_new_metrics` that follow from means over samples.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), int64.
        base: Mask of the classes of training, shape (C,), bool.
        unknown: Class scores of a model without knowledge of base and new classes, shape (N, C), see `Scores`.
    """
    kinds = []
    for group in (base, ~base):
        in_group = group[label]
        right = logits.masked_fill(~group, -torch.inf).argmax(1) == label
        kinds.append(torch.stack([in_group & right, in_group], 1).float())
    both = torch.cat(kinds, 1)

    def mean(means: Tensor) -> Tensor:
        """Compute the harmonic mean of base and new accuracy, shape (R,), from means, shape (R, 4)."""
        accuracies = means[:, ::2] / means[:, 1::2]
        return 2 * accuracies.prod(1) / accuracies.sum(1).clamp(min=1e-12)

    return {
        "base_accuracy": MeanBasedMetric(kinds[0], lambda means: means[:, 0] / means[:, 1]),
        "new_accuracy": MeanBasedMetric(kinds[1], lambda means: means[:, 0] / means[:, 1]),
        "harmonic_mean": MeanBasedMetric(both, mean),
        "unknown_accuracy": _mean(unknown.argmax(1) == label),
        **probability_metric_parts(unknown, label),
    }


def probability_metric_parts(logits: Tensor, label: Tensor) -> dict[str, MeanBasedMetric]:
    """Return the Brier score and the loss of `trust_metrics`.

    The calibration error is excluded: resampling biases absolute gaps upwards.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), or 0/1 per class, shape (N, C).
    """
    return {"brier": _mean(sample_briers(logits, label)), "loss": _mean(sample_losses(logits, label))}


def _class_parts(predicted: Tensor, actual: Tensor, averages: dict[str, Average]) -> dict[str, MeanBasedMetric]:
    """Return averages over classes, such as that of F1, from predicted and true classes, shape (N, C), bool each."""
    # All averages share this tensor, so that it is resampled once.
    counts = torch.cat([predicted & actual, predicted, actual], 1).float()

    def of(average: Average, means: Tensor) -> Tensor:
        """Compute an average over classes, shape (R,), from means, shape (R, 3 C)."""
        hits, predicted, actual = means.chunk(3, 1)
        return average(hits, predicted + actual, actual)

    return {name: MeanBasedMetric(counts, partial(of, average)) for name, average in averages.items()}


def _mean(values: Tensor) -> MeanBasedMetric:
    return MeanBasedMetric(values.float().unsqueeze(1), lambda means: means[:, 0])
