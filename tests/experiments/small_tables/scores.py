"""Metrics of the suite: accuracy, or F1 with thresholds that are chosen on held-out predictions of training samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Labels = NDArray[np.int64]
THRESHOLDS = np.linspace(0.02, 0.8, 40)


def accuracy(probabilities: Array, label: Labels) -> float:
    """Return the fraction of samples whose most probable class is right."""
    return float((probabilities.argmax(1) == label).mean())


def f1_micro(predicted: Labels, label: Labels) -> float:
    """Return the F1 of all decisions together."""
    total = predicted.sum() + label.sum()
    return float(2 * (predicted * label).sum() / total) if total else 0.0


def f1_macro(predicted: Labels, label: Labels) -> float:
    """Return the mean F1 over the classes; a class that is neither present nor predicted counts as 0."""
    total = predicted.sum(0) + label.sum(0)
    return float((2 * (predicted * label).sum(0) / np.maximum(total, 1)).mean())


METRICS = {"f1_micro": f1_micro, "f1_macro": f1_macro}


def best_threshold(metric: str, held_out: Array, label: Labels) -> float:
    """Return the threshold for all classes with the best F1 on held-out predictions."""
    values = [METRICS[metric]((held_out >= threshold).astype(int), label) for threshold in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(values))])


def constant(train: Labels, test: Labels) -> dict[str, float]:
    """Return the metrics of the best constant answer: the most frequent class, or several of them if there are more."""
    if train.ndim == 1:
        return {"accuracy": float((test == np.bincount(train).argmax()).mean())}
    order = np.argsort(-train.sum(0))
    found = {}
    for name, metric in METRICS.items():
        answers = []
        for size in range(1, len(order) + 1):
            answer = np.zeros(len(order), dtype=int)
            answer[order[:size]] = 1
            answers.append(answer)
        values = [metric(np.tile(answer, (len(train), 1)), train) for answer in answers]
        best = answers[int(np.argmax(values))]
        found[name] = metric(np.tile(best, (len(test), 1)), test)
    return found
