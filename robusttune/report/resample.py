"""Metrics on test samples that are drawn anew, for the paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusttune.evaluation.bootstrap import resampled_means
from robusttune.evaluation.f1 import Average, macro, macro_of_all, micro, weighted
from robusttune.evaluation.metrics import samples_f1
from robusttune.report.answers import Answers

TOP = 5
AT_ONCE = 30_000_000  # float32 numbers of one-hot labels that are held at once: 120 MB


def resampled(answers: Answers, metric: str) -> Tensor | None:
    """A metric on samples that are drawn anew, (resamples, K) float64; of the same samples always the same draws.

    Accuracies are means over samples; the F1 of each draw comes from its sums of true positives, predicted and actual
    positives.

    Returns:
        None where nothing that is kept of single samples gives the metric.
    """
    of_one: dict[str, Callable[[], Tensor]] = {
        "accuracy": lambda: _means(answers, answers.correct),
        "unknown_accuracy": lambda: _means(answers, answers.correct),
        f"top{TOP}_accuracy": lambda: _means(answers, answers.column("label_rank") <= TOP),
        "f1_macro": lambda: _f1(answers, macro),
        "f1_weighted": lambda: _f1(answers, weighted),
    }
    of_several: dict[str, Callable[[], Tensor]] = {
        "f1_macro": lambda: _f1(answers, macro_of_all),
        "f1_micro": lambda: _f1(answers, micro),
        "f1_weighted": lambda: _f1(answers, weighted),
        "f1_samples": lambda: _means(answers, _f1_of_samples(answers)),
    }
    compute = (of_several if answers.multilabel else of_one).get(metric)
    return None if compute is None else compute()


def _means(answers: Answers, parts: NDArray[np.generic]) -> Tensor:
    """Of parts (K, N)."""
    return resampled_means(torch.from_numpy(np.ascontiguousarray(parts.T, np.float32)), seed=_seed(answers))


def _seed(answers: Answers) -> int:
    """Other samples are drawn on their own."""
    return int(answers.samples[:8], 16)


def _f1(answers: Answers, average: Average) -> Tensor:
    actual = _one_hot(answers, answers.label)
    of_actual = resampled_means(actual, seed=_seed(answers))
    samples, classes = actual.shape
    averaged = []
    for predicted in _some_at_once(answers, 2 * samples * classes):
        parts = torch.stack([predicted * actual, predicted + actual]).permute(2, 0, 1, 3)
        sums = resampled_means(parts.reshape(samples, -1), seed=_seed(answers))
        hits, both = sums.view(len(sums), 2, len(predicted), classes).unbind(1)
        averaged.append(average(hits, both, of_actual.unsqueeze(1)))
    return torch.cat(averaged, 1)


def _some_at_once(answers: Answers, numbers: int) -> Iterator[Tensor]:
    """Predictions of a few conditions after the other, (k, N, C) float32."""
    step = max(1, AT_ONCE // numbers)
    for some in range(0, len(answers.conditions), step):
        yield _one_hot(answers, answers.prediction[some : some + step])


def _one_hot(answers: Answers, classes: NDArray[np.generic]) -> Tensor:
    if answers.multilabel:
        return torch.from_numpy(classes).float()
    return torch.from_numpy(classes[..., None] == np.arange(len(answers.class_names))).float()


def _f1_of_samples(answers: Answers) -> NDArray[np.float32]:
    """(K, N)."""
    label = torch.from_numpy(answers.label)
    return np.stack([samples_f1(torch.from_numpy(said), label).numpy() for said in answers.prediction])
