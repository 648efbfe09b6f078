"""Metrics of the predictions under one condition, for multi-class, multi-label and base-to-new evaluation.

They come from torchmetrics, apart from those that it lacks (loss, Brier score) or computes in another way (top-5
accuracy, F1 of samples). Its argument checks are off, because they sort whole tensors to find invalid values.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional import classification

from robusttune.evaluation.calibration import calibration_error
from robusttune.evaluation.per_sample import label_ranks, sample_briers, sample_losses, samples_f1
from robusttune.evaluation.ranking import ranking_metrics
from robusttune.predictions import predicted_classes

multiclass_accuracy = partial(classification.multiclass_accuracy, average="micro", validate_args=False)
multiclass_recall = partial(classification.multiclass_recall, average="none", validate_args=False)
multiclass_f1_score = partial(classification.multiclass_f1_score, validate_args=False)
multilabel_f1_score = partial(classification.multilabel_f1_score, validate_args=False)


def multiclass_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """Compute all metrics of multi-class data.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), int64.

    Returns:
        Metrics by name, see `names_of_metrics`.

    Example:
        >>> import torch
        >>> multiclass_metrics(torch.eye(3), torch.tensor([0, 1, 1]))["f1_weighted"]
        0.777...
    """
    predicted, classes = logits.argmax(1), logits.shape[1]
    found = {
        "accuracy": accuracy(predicted, label, classes),
        "balanced_accuracy": balanced_accuracy(predicted, label, classes),
        "f1_macro": float(multiclass_f1_score(predicted, label, classes, average="macro")),
        "f1_weighted": float(multiclass_f1_score(predicted, label, classes, average="weighted")),
        **ranking_metrics(logits.softmax(1), functional.one_hot(label, classes).bool()),
        **probability_metrics(logits, label),
    }
    if classes > 5:
        # torchmetrics breaks ties in an order that torch.topk does not define, and takes eight times as long.
        found["top5_accuracy"] = float((label_ranks(logits, label) <= 5).double().mean())
    return found


def multilabel_metrics(logits: Tensor, label: Tensor, cuts: Tensor | float = 0.0) -> dict[str, float]:
    """Compute all metrics of multi-label data.

    Args:
        logits: Class scores, shape (N, C).
        label: Labels, shape (N, C), 0 or 1.
        cuts: Logits from which a class is predicted, see `predicted_classes`.

    Returns:
        Metrics by name, see `names_of_metrics`.

    Example:
        >>> import torch
        >>> multilabel_metrics(torch.tensor([[2.0, -2.0]]), torch.tensor([[1, 1]]))["f1_macro"]
        0.5
    """
    predicted, actual, classes = predicted_classes(logits, True, cuts).long(), label.long(), logits.shape[1]
    averages = {
        f"f1_{average}": float(multilabel_f1_score(predicted, actual, classes, average=average))
        for average in ("macro", "micro", "weighted")
    }
    # torchmetrics has the F1 of each sample, too, but fails if there is only one sample.
    of_samples = float(samples_f1(predicted.bool(), actual.bool()).mean())
    ranking = ranking_metrics(logits.sigmoid(), actual.bool())
    return averages | {"f1_samples": of_samples, **ranking, **probability_metrics(logits, label)}


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

    Example:
        >>> import torch
        >>> base, label = torch.tensor([True, True, False]), torch.tensor([0, 2])
        >>> logits = torch.tensor([[2.0, 1.0, 3.0], [2.0, 1.0, 0.0]])
        >>> [round(value, 2) for value in base_and_new_metrics(logits, label, base, logits).values()][:4]
        [1.0, 1.0, 1.0, 0.0]
    """
    found, classes = {}, len(base)
    for name, group in (("base_accuracy", base), ("new_accuracy", ~base)):
        in_group = group[label]
        predicted = logits[in_group].masked_fill(~group, -torch.inf).argmax(1)
        found[name] = accuracy(predicted, label[in_group], classes)
    both = [*found.values()]
    found["harmonic_mean"] = 2 * both[0] * both[1] / sum(both) if sum(both) != 0 else 0.0
    found["unknown_accuracy"] = accuracy(unknown.argmax(1), label, classes)
    return found | probability_metrics(unknown, label)


def probability_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """Compute how reliable the probabilities are: expected calibration error, Brier score and cross-entropy.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), or 0/1 per class, shape (N, C).

    Returns:
        Values of ``calibration_error``, ``brier`` and ``loss``; lower is better.
    """
    return {
        "calibration_error": calibration_error(logits, label),
        "brier": float(sample_briers(logits, label).double().mean()),
        "loss": float(sample_losses(logits, label).double().mean()),
    }


def accuracy(predicted: Tensor, label: Tensor, classes: int) -> float:
    """Return the fraction of samples whose prediction is right, in [0, 1], or NaN without samples.

    Args:
        predicted: Predicted class indices, shape (N,), int64.
        label: Class indices, shape (N,), int64.
        classes: Number of classes.
    """
    # torchmetrics returns 0 without samples.
    return float(multiclass_accuracy(predicted, label, classes)) if len(label) else float("nan")


def balanced_accuracy(predicted: Tensor, label: Tensor, classes: int) -> float:
    """Return the mean recall of the classes that have samples, in [0, 1] (Brodersen et al. 2010).

    Args:
        predicted: Predicted class indices, shape (N,), int64.
        label: Class indices, shape (N,), int64.
        classes: Number of classes.
    """
    # The macro average of torchmetrics counts a class without samples as 0 if it is predicted.
    recall, sizes = multiclass_recall(predicted, label, classes), torch.bincount(label, minlength=classes)
    return float(recall[sizes > 0].mean())
