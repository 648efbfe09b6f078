"""Metrics of one condition, by kind of task."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_f1_score, multilabel_f1_score

from robusttune.evaluation.ranking import ranking_metrics

BINS = 15  # of confidence, in the calibration error (Guo et al. 2017, arXiv 1706.04599)
LOWER_IS_BETTER = ("loss", "brier", "calibration_error")


def names_of_metrics(multilabel: bool, classes: int, mixed: bool) -> list[str]:
    """What the functions below return.

    Args:
        multilabel: whether a sample may carry several labels.
        classes: how many there are.
        mixed: whether some of them are of training and some are not.
    """
    if mixed:
        return ["base_accuracy", "new_accuracy", "harmonic_mean", "unknown_accuracy", *reversed(LOWER_IS_BETTER)]
    found = ["f1_macro", "f1_micro", "f1_weighted", "f1_samples"]
    if not multilabel:
        found = ["accuracy", *(["top5_accuracy"] if classes > 5 else []), "f1_macro", "f1_weighted"]
    return [*found, "auroc", "average_precision", *reversed(LOWER_IS_BETTER)]


def headline(multilabel: bool, mixed: bool) -> str:
    """The metric that is named where there is room for one."""
    return "harmonic_mean" if mixed else "f1_macro" if multilabel else "accuracy"


def probabilities(logits: Tensor, multilabel: bool) -> Tensor:
    """Probabilities of logits (..., C)."""
    return logits.sigmoid() if multilabel else logits.softmax(-1)


def predicted_classes(logits: Tensor, multilabel: bool) -> Tensor:
    """(N, C) bool, the classes said of samples: the likeliest; in multi-label data all of probability 0.5 or more."""
    if multilabel:
        return logits.sigmoid() >= 0.5
    return functional.one_hot(logits.argmax(1), logits.shape[1]).bool()


def label_ranks(logits: Tensor, label: Tensor) -> Tensor:
    """(N,) from 1, the place of the label (N,) among classes in the order of logits (N, C); of equal ones the first."""
    own, place = logits.gather(1, label.unsqueeze(1)), torch.arange(logits.shape[1], device=logits.device)
    return ((logits > own) | ((logits == own) & (place < label.unsqueeze(1)))).sum(1) + 1


def sample_losses(logits: Tensor, label: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each sample, (B,): categorical, or binary averaged over the classes in multi-label data.

    Args:
        logits: (B, C).
        label: (B,) or (B, C).
        smoothing: how much of the label is spread over all answers alike (Szegedy et al. 2016), in [0, 1).
    """
    if label.dim() == 1:
        return functional.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing)
    target = label * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)


def sample_briers(logits: Tensor, label: Tensor) -> Tensor:
    """Squared distance of probabilities to labels, of each sample, (B,).

    Summed over the classes (Brier 1950), so in [0, 2]; in multi-label data averaged over them, in [0, 1].
    """
    if label.dim() == 1:
        return (logits.softmax(1) - functional.one_hot(label, logits.shape[1])).square().sum(1)
    return (logits.sigmoid() - label).square().mean(1)


def multiclass_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """Of logits (N, C) and labels (N,)."""
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
    """Of logits (N, C) and labels (N, C)."""
    said, hot = predicted_classes(logits, multilabel=True), label.bool()
    averages = {
        f"f1_{average}": float(multilabel_f1_score(said.long(), hot.long(), logits.shape[1], average=average))
        for average in ("macro", "micro", "weighted")
    }
    samples = float(samples_f1(said, hot).mean())
    ranking = ranking_metrics(logits.sigmoid(), hot)
    return averages | {"f1_samples": samples, **ranking, **trust_metrics(logits, label)}


def samples_f1(said: Tensor, label: Tensor) -> Tensor:
    """(N,), the F1 of the classes said of each sample, both (N, C) bool; 0 where neither has any."""
    both = (said & label).sum(1)
    return 2 * both / (said.sum(1) + label.sum(1)).clamp(min=1)


def calibration_gaps(logits: Tensor, label: Tensor) -> Tensor:
    """What each sample gives to the calibration error, (N, BINS).

    In the bin of its confidence stands whether it is right, less the confidence; in multi-label data the mean over the
    classes. The error is the sum over the bins of the absolute means over the samples.
    """
    if label.dim() == 2:
        shares, right = logits.sigmoid(), label
    else:
        said = logits.argmax(1, keepdim=True)
        shares, right = logits.softmax(1).gather(1, said), said == label.unsqueeze(1)
    inner = torch.linspace(0, 1, BINS + 1, dtype=shares.dtype)[1:-1]
    bins = torch.bucketize(shares, inner, right=True)
    gaps = right.to(shares.dtype) - shares
    return shares.new_zeros(len(shares), BINS).scatter_add_(1, bins, gaps) / shares.shape[1]


def trust_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """How far probabilities can be trusted: expected calibration error, Brier score and cross-entropy.

    The calibration error is of the likeliest class; in multi-label data that of all classes of all samples.
    """
    return {
        "calibration_error": float(calibration_gaps(logits, label).double().mean(0).abs().sum()),
        "brier": float(sample_briers(logits, label).double().mean()),
        "loss": float(sample_losses(logits, label).double().mean()),
    }


def base_and_new_metrics(logits: Tensor, label: Tensor, base: Tensor, unknown: Tensor) -> dict[str, float]:
    """Base-to-new generalisation (CoCoOp, arXiv 2203.05557).

    Args:
        logits: (N, C).
        label: (N,).
        base: (C,) bool, True for classes of training.
        unknown: (N, C), see `Scores`.

    Returns:
        ``base_accuracy`` of the samples of base classes, told apart from base classes only; ``new_accuracy`` likewise;
        their ``harmonic_mean``; and ``unknown_accuracy`` of all samples among all classes, by the logits ``unknown``,
        of which the rest is, too. Not a number where there is no sample to measure it by.
    """
    found = {}
    for name, group in (("base_accuracy", base), ("new_accuracy", ~base)):
        of_group = group[label]
        answers = logits[of_group].masked_fill(~group, -torch.inf).argmax(1)
        found[name] = float((answers == label[of_group]).double().mean())
    both = [*found.values()]
    found["harmonic_mean"] = 2 * both[0] * both[1] / sum(both) if sum(both) != 0 else 0.0
    found["unknown_accuracy"] = float((unknown.argmax(1) == label).double().mean())
    return found | trust_metrics(unknown, label)
