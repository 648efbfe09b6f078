"""Metrics of the suite, for one sample of rows or for many bootstrap samples at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Values = NDArray[np.float64]
Metric = Callable[[Labels, Labels, Values], Values]
DRAWS = 1000


def accuracy(predicted: Labels, label: Labels, weights: Values) -> Values:
    """Return the fraction of samples whose predicted class is right.

    Args:
        predicted: Predicted classes, shape (N,).
        label: Class indices, shape (N,).
        weights: How often each of ``D`` draws has each sample, shape (D, N).

    Returns:
        Accuracy of each draw, shape (D,).
    """
    found: Values = weights @ (predicted == label) / weights.sum(1)
    return found


def f1_micro(predicted: Labels, label: Labels, weights: Values) -> Values:
    """Return the F1 of all decisions together; predictions and labels are 0/1 per class, shape (N, C)."""
    hits, total = _hits_and_total(predicted, label, weights)
    found: Values = 2 * hits.sum(1) / np.maximum(total.sum(1), 1)
    return found


def f1_macro(predicted: Labels, label: Labels, weights: Values) -> Values:
    """Return the mean F1 over the classes; a class that is neither present nor predicted counts as 0."""
    hits, total = _hits_and_total(predicted, label, weights)
    found: Values = (2 * hits / np.maximum(total, 1)).mean(1)
    return found


def _hits_and_total(predicted: Labels, label: Labels, weights: Values) -> tuple[Values, Values]:
    return weights @ (predicted * label), weights @ (predicted + label)


METRICS: dict[str, Metric] = {"accuracy": accuracy, "f1_macro": f1_macro, "f1_micro": f1_micro}
MULTILABEL = ("f1_macro", "f1_micro")


def metrics_of(label: Labels) -> tuple[str, ...]:
    """Return the names of the metrics for labels of this kind."""
    return ("accuracy",) if label.ndim == 1 else MULTILABEL


def score(metric: str, predicted: Labels, label: Labels) -> float:
    """Return a metric of all samples.

    Example:
        >>> score("accuracy", np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
        0.75
    """
    return float(METRICS[metric](predicted, label, np.ones((1, len(label))))[0])


def paired_difference(metric: str, first: Labels, second: Labels, label: Labels) -> tuple[float, float, float]:
    """Return how much better the first predictions are, with the limits of a paired 95 % bootstrap interval.

    Each draw has the same samples for both predictions.
    """
    draws = np.random.default_rng(0).multinomial(len(label), np.full(len(label), 1 / len(label)), DRAWS).astype(float)
    differences = METRICS[metric](first, label, draws) - METRICS[metric](second, label, draws)
    low, high = np.quantile(differences, (0.025, 0.975))
    return score(metric, first, label) - score(metric, second, label), float(low), float(high)


def constant(train: Labels, test: Labels) -> dict[str, float]:
    """Return the metrics of the best constant answer: the most frequent class, or several of them if there are more."""
    if train.ndim == 1:
        return {"accuracy": float((test == np.bincount(train).argmax()).mean())}
    rank = np.argsort(np.argsort(-train.sum(0), kind="stable"))
    answers = [(rank < size).astype(int) for size in range(1, len(rank) + 1)]
    found = {}
    for name in MULTILABEL:
        values = [score(name, np.tile(answer, (len(train), 1)), train) for answer in answers]
        found[name] = score(name, np.tile(answers[int(np.argmax(values))], (len(test), 1)), test)
    return found
