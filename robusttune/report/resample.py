"""Bootstrap distributions of metrics over test samples (Efron 1979), for paired differences between runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusttune.evaluation.bootstrap import resampled_means
from robusttune.evaluation.f1 import Average, macro, macro_of_all, macro_recall, micro, weighted
from robusttune.evaluation.per_sample import samples_f1
from robusttune.report.predictions import Predictions

TOP = 5
AT_ONCE = 30_000_000  # most float32 numbers of one-hot labels in memory at once: 120 MB


def resampled(predictions: Predictions, metric: str) -> Tensor | None:
    """Bootstrap a metric over the test samples of a run.

    The resamples depend on the test samples alone, so runs on the same samples have the same resamples and their
    differences are paired. Accuracies are means over samples. The F1 of a resample follows from its sums of true
    positives, predicted positives and actual positives.

    Args:
        predictions: Predictions for N samples under K conditions.
        metric: Name of the metric.

    Returns:
        Metric of each resample under each condition, shape (resamples, K), float64; None if the metric cannot be
        computed from the predictions for single samples.
    """
    single_label: dict[str, Callable[[], Tensor]] = {
        "accuracy": lambda: _means(predictions, predictions.correct),
        "unknown_accuracy": lambda: _means(predictions, predictions.correct),
        f"top{TOP}_accuracy": lambda: _means(predictions, predictions.column("label_rank") <= TOP),
        "balanced_accuracy": lambda: _class_average(predictions, macro_recall),
        "f1_macro": lambda: _class_average(predictions, macro),
        "f1_weighted": lambda: _class_average(predictions, weighted),
    }
    if "prediction_in_group" in predictions.table.column_names:
        single_label |= {
            "base_accuracy": lambda: _group_accuracy(predictions, base=True),
            "new_accuracy": lambda: _group_accuracy(predictions, base=False),
            "harmonic_mean": lambda: _harmonic_mean(predictions),
        }
    multilabel: dict[str, Callable[[], Tensor]] = {
        "f1_macro": lambda: _class_average(predictions, macro_of_all),
        "f1_micro": lambda: _class_average(predictions, micro),
        "f1_weighted": lambda: _class_average(predictions, weighted),
        "f1_samples": lambda: _means(predictions, _f1_of_samples(predictions)),
    }
    compute = (multilabel if predictions.multilabel else single_label).get(metric)
    return None if compute is None else compute()


def _means(predictions: Predictions, parts: NDArray[np.generic]) -> Tensor:
    """Return the mean of each resample under each condition, shape (resamples, K), for ``parts`` of shape (K, N)."""
    return resampled_means(torch.from_numpy(np.ascontiguousarray(parts.T, np.float32)), seed=_seed(predictions))


def _group_accuracy(predictions: Predictions, base: bool) -> Tensor:
    """Return the accuracy on base or on new classes of each resample under each condition, shape (resamples, K)."""
    group = predictions.column("base").astype(bool) == base
    right = predictions.column("prediction_in_group") == predictions.column("label")
    return _means(predictions, group & right) / _means(predictions, group)


def _harmonic_mean(predictions: Predictions) -> Tensor:
    """Return the harmonic mean of base and new accuracy of each resample, shape (resamples, K)."""
    base, new = _group_accuracy(predictions, base=True), _group_accuracy(predictions, base=False)
    return 2 * base * new / (base + new).clamp(min=1e-12)


def _seed(predictions: Predictions) -> int:
    """Return a seed from the hash of the samples, so that other samples get independent resamples."""
    return int(predictions.samples[:8], 16)


def _class_average(predictions: Predictions, average: Average) -> Tensor:
    """Return an average over classes, such as F1, of each resample under each condition, shape (resamples, K)."""
    actual = _one_hot(predictions, predictions.label)
    actual_means = resampled_means(actual, seed=_seed(predictions))
    samples, classes = actual.shape
    averaged = []
    for predicted in _prediction_chunks(predictions, 2 * samples * classes):
        parts = torch.stack([predicted * actual, predicted + actual]).permute(2, 0, 1, 3)
        sums = resampled_means(parts.reshape(samples, -1), seed=_seed(predictions))
        hits, both = sums.view(len(sums), 2, len(predicted), classes).unbind(1)
        averaged.append(average(hits, both, actual_means.unsqueeze(1)))
    return torch.cat(averaged, 1)


def _prediction_chunks(predictions: Predictions, numbers: int) -> Iterator[Tensor]:
    """Yield the predictions of a few conditions at a time, shape (k, N, C), float32, to limit the memory.

    Args:
        predictions: Predictions for N samples under K conditions.
        numbers: Count of float32 numbers that the caller needs per condition.
    """
    step = max(1, AT_ONCE // numbers)
    for start in range(0, len(predictions.conditions), step):
        yield _one_hot(predictions, predictions.prediction[start : start + step])


def _one_hot(predictions: Predictions, classes: NDArray[np.generic]) -> Tensor:
    """Return class indices (..., N) or flags (..., N, C) as float32 of shape (..., N, C)."""
    if predictions.multilabel:
        return torch.from_numpy(classes).float()
    return torch.from_numpy(classes[..., None] == np.arange(len(predictions.class_names))).float()


def _f1_of_samples(predictions: Predictions) -> NDArray[np.float32]:
    """Return the F1 between predicted and actual classes of each sample, shape (K, N), for multi-label data."""
    label = torch.from_numpy(predictions.label)
    return np.stack([samples_f1(torch.from_numpy(predicted), label).numpy() for predicted in predictions.prediction])
