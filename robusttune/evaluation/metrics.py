"""Metrics of the predictions under one condition, for multi-class, multi-label and base-to-new evaluation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_f1_score, multilabel_f1_score

from robusttune.evaluation.ranking import ranking_metrics
from robusttune.predictions import predicted_classes

BINS = 15  # confidence bins of the calibration error (Guo et al. 2017, arXiv 1706.04599)
LOWER_IS_BETTER = ("loss", "brier", "calibration_error")


def names_of_metrics(multilabel: bool, classes: int, mixed: bool) -> list[str]:
    """Return the names of the metrics that are computed for this kind of data.

    Args:
        multilabel: True if a sample may have several labels.
        classes: Number of classes.
        mixed: True if some of the classes were trained on and others were not.

    Example:
        >>> names_of_metrics(multilabel=False, classes=3, mixed=False)[:3]
        ['accuracy', 'f1_macro', 'f1_weighted']
    """
    if mixed:
        return ["base_accuracy", "new_accuracy", "harmonic_mean", "unknown_accuracy", *reversed(LOWER_IS_BETTER)]
    found = ["f1_macro", "f1_micro", "f1_weighted", "f1_samples"]
    if not multilabel:
        found = ["accuracy", *(["top5_accuracy"] if classes > 5 else []), "f1_macro", "f1_weighted"]
    return [*found, "auroc", "average_precision", *reversed(LOWER_IS_BETTER)]


def headline(multilabel: bool, mixed: bool) -> str:
    """Return the name of the main metric.

    Args:
        multilabel: True if a sample may have several labels.
        mixed: True if some of the classes were trained on and others were not.
    """
    return "harmonic_mean" if mixed else "f1_macro" if multilabel else "accuracy"


def label_ranks(logits: Tensor, label: Tensor) -> Tensor:
    """Return the rank of each sample's label among the classes sorted by logit, from 1, shape (N,).

    Classes with equal logits are ranked by their index.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), int64.
    """
    own, place = logits.gather(1, label.unsqueeze(1)), torch.arange(logits.shape[1], device=logits.device)
    return ((logits > own) | ((logits == own) & (place < label.unsqueeze(1)))).sum(1) + 1


def sample_losses(logits: Tensor, label: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of each sample, shape (B,).

    It is categorical in multi-class data. In multi-label data it is binary and averaged over the classes.

    Args:
        logits: Class scores, shape (B, C).
        label: Class indices, shape (B,), or 0/1 per class, shape (B, C).
        smoothing: Label smoothing, the fraction of the label that is spread evenly over all classes (Szegedy et al.
            2016), in [0, 1).

    Example:
        >>> import torch
        >>> sample_losses(torch.zeros(1, 2), torch.tensor([0])).exp()
        tensor([2.])
    """
    if label.dim() == 1:
        return functional.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing)
    target = label * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)


def sample_briers(logits: Tensor, label: Tensor) -> Tensor:
    """Return the Brier score of each sample, shape (B,): the squared distance between probabilities and label.

    In multi-class data it is summed over the classes (Brier 1950), so it is in [0, 2]. In multi-label data it is
    averaged over them, in [0, 1].

    Args:
        logits: Class scores, shape (B, C).
        label: Class indices, shape (B,), or 0/1 per class, shape (B, C).
    """
    if label.dim() == 1:
        return (logits.softmax(1) - functional.one_hot(label, logits.shape[1])).square().sum(1)
    return (logits.sigmoid() - label).square().mean(1)


def multiclass_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """Compute all metrics of multi-class data.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), int64.

    Returns:
        Metrics by name, see `names_of_metrics`.
    """
    classes = logits.shape[1]
    found = {
        "accuracy": float((logits.argmax(1) == label).double().mean()),
        "f1_macro": float(multiclass_f1_score(logits, label, classes, average="macro")),
        "f1_weighted": float(multiclass_f1_score(logits, label, classes, average="weighted")),
        **ranking_metrics(logits.softmax(1), functional.one_hot(label, classes).bool()),
        **trust_metrics(logits, label),
    }
    if classes > 5:
        found["top5_accuracy"] = float((label_ranks(logits, label) <= 5).double().mean())
    return found


def multilabel_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """Compute all metrics of multi-label data.

    Args:
        logits: Class scores, shape (N, C).
        label: Labels, shape (N, C), 0 or 1.

    Returns:
        Metrics by name, see `names_of_metrics`.
    """
    predicted, actual = predicted_classes(logits, multilabel=True), label.bool()
    averages = {
        f"f1_{average}": float(multilabel_f1_score(predicted.long(), actual.long(), logits.shape[1], average=average))
        for average in ("macro", "micro", "weighted")
    }
    samples = float(samples_f1(predicted, actual).mean())
    ranking = ranking_metrics(logits.sigmoid(), actual)
    return averages | {"f1_samples": samples, **ranking, **trust_metrics(logits, label)}


def samples_f1(said: Tensor, label: Tensor) -> Tensor:
    """Return the F1 of each sample over its predicted and true classes, shape (N,); 0 if both are empty.

    Args:
        said: Predicted classes, shape (N, C), bool.
        label: True classes, shape (N, C), bool.
    """
    both = (said & label).sum(1)
    return 2 * both / (said.sum(1) + label.sum(1)).clamp(min=1)


def calibration_gaps(logits: Tensor, label: Tensor) -> Tensor:
    """Return the contribution of each sample to the calibration error, shape (N, BINS).

    Each row holds, in the bin of the confidence, 1 if the prediction is right else 0, minus the confidence. In
    multi-label data each class contributes in this way, and the row is the mean over the classes. The expected
    calibration error is the sum over the bins of the absolute means over the samples.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), or 0/1 per class, shape (N, C).
    """
    if label.dim() == 2:
        confidence, right = logits.sigmoid(), label
    else:
        predicted = logits.argmax(1, keepdim=True)
        confidence, right = logits.softmax(1).gather(1, predicted), predicted == label.unsqueeze(1)
    inner = torch.linspace(0, 1, BINS + 1, dtype=confidence.dtype)[1:-1]
    bins = torch.bucketize(confidence, inner, right=True)
    gaps = right.to(confidence.dtype) - confidence
    return confidence.new_zeros(len(confidence), BINS).scatter_add_(1, bins, gaps) / confidence.shape[1]


def trust_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """Compute how reliable the probabilities are: expected calibration error, Brier score and cross-entropy.

    The calibration error (Guo et al. 2017, arXiv 1706.04599) is that of the most likely class; in multi-label data that
    of all classes of all samples.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), or 0/1 per class, shape (N, C).

    Returns:
        Values of ``calibration_error``, ``brier`` and ``loss``; lower is better.
    """
    return {
        "calibration_error": float(calibration_gaps(logits, label).double().mean(0).abs().sum()),
        "brier": float(sample_briers(logits, label).double().mean()),
        "loss": float(sample_losses(logits, label).double().mean()),
    }


def base_and_new_metrics(logits: Tensor, label: Tensor, base: Tensor, unknown: Tensor) -> dict[str, float]:
    """Compute the metrics of base-to-new generalisation (CoCoOp, arXiv 2203.05557).

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), int64.
        base: Mask of the classes of training, shape (C,), bool.
        unknown: Class scores of a model without knowledge of base and new classes, shape (N, C), see `Scores`.

    Returns:
        Metrics by name. ``base_accuracy`` is the accuracy on samples of base classes, with base classes as the only
        candidates. ``new_accuracy`` is the same for new classes. ``harmonic_mean`` is their harmonic mean.
        ``unknown_accuracy`` is the accuracy on all samples among all classes, according to ``unknown``. The metrics of
        `trust_metrics` are also computed from ``unknown``. An accuracy without samples is NaN.
    """
    found = {}
    for name, group in (("base_accuracy", base), ("new_accuracy", ~base)):
        in_group = group[label]
        predicted = logits[in_group].masked_fill(~group, -torch.inf).argmax(1)
        found[name] = float((predicted == label[in_group]).double().mean())
    both = [*found.values()]
    found["harmonic_mean"] = 2 * both[0] * both[1] / sum(both) if sum(both) != 0 else 0.0
    found["unknown_accuracy"] = float((unknown.argmax(1) == label).double().mean())
    return found | trust_metrics(unknown, label)
