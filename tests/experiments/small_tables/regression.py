"""Logistic regression with an L2 penalty, chosen by cross-validation: plain PyTorch, without the package's models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # inverse regularisation, scikit-learn's C
FOLDS = 3
Array = NDArray[np.floating]


class Standard(NamedTuple):
    """Mean and standard deviation of each feature, of shape (d,)."""

    centre: Array
    scale: Array

    @classmethod
    def of(cls, features: Array) -> Standard:
        return cls(features.mean(0), features.std(0) + 1e-6)

    def __call__(self, features: Array) -> torch.Tensor:
        return torch.tensor((features - self.centre) / self.scale, dtype=torch.float32)


class Fitted(NamedTuple):
    """A regression that is fitted.

    Attributes:
        standard: Standardisation of the features.
        weights: Weights and, in the last row, intercepts, shape (d + 1, K).
        strength: Inverse regularisation.
        held_out: Probabilities of the training samples from models that have not seen them, (N, K).
    """

    standard: Standard
    weights: torch.Tensor
    strength: float
    held_out: Array

    def probabilities(self, features: Array, multilabel: bool) -> Array:
        """Return the probability of each class, shape (N, K)."""
        return to_probabilities(self.standard(features), self.weights, multilabel)


def cross_validated(features: Array, label: NDArray[np.int64], classes: int, folds: NDArray[np.int64]) -> Fitted:
    """Fit a regression with the regularisation whose cross-validated log-loss is smallest.

    Args:
        features: Features of the training samples, (N, d).
        label: Class of each sample, (N,), or 0 and 1 for each class, (N, K).
        classes: Number of classes K.
        folds: Fold of each sample, (N,).
    """
    multilabel = label.ndim == 2
    held_out = np.zeros((len(STRENGTHS), len(label), classes))
    for fold in np.unique(folds):
        rows = folds != fold
        standard = Standard.of(features[rows])
        path = fit_path(standard(features[rows]), torch.tensor(label[rows]), classes, STRENGTHS)
        for place, weights in enumerate(path):
            held_out[place, ~rows] = to_probabilities(standard(features[~rows]), weights, multilabel)
    losses = [log_loss(probabilities, label) for probabilities in held_out]
    best = int(np.argmin(losses))
    standard = Standard.of(features)
    weights = fit_path(standard(features), torch.tensor(label), classes, STRENGTHS[: best + 1])[-1]
    return Fitted(standard, weights, STRENGTHS[best], held_out[best])


def fit_path(
    features: torch.Tensor, label: torch.Tensor, classes: int, strengths: Sequence[float]
) -> list[torch.Tensor]:
    """Fit a regression for each strength, from strong to weak regularisation; each starts where the last one ended.

    The objective is scikit-learn's, divided by the number of samples times C: the mean loss plus the squared weights,
    without intercepts, over 2 C N.

    Returns:
        Weights and intercepts, (d + 1, K), for each strength.
    """
    with_ones = torch.cat([features, torch.ones(len(features), 1)], 1)
    weights = torch.zeros(with_ones.shape[1], classes, requires_grad=True)
    found = []
    for strength in strengths:
        found.append(_minimise(with_ones, label, weights, strength * len(label)))
    return found


def _minimise(with_ones: torch.Tensor, label: torch.Tensor, weights: torch.Tensor, scale: float) -> torch.Tensor:
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=100, tolerance_grad=1e-5, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )
    target = label.float() if label.ndim == 2 else label

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        logits = with_ones @ weights
        if label.ndim == 2:
            loss = binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()
        else:
            loss = cross_entropy(logits, target)
        value = loss + weights[:-1].square().sum() / (2 * scale)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    return weights.detach().clone()


def to_probabilities(features: torch.Tensor, weights: torch.Tensor, multilabel: bool) -> Array:
    """Return the probability of each class, shape (N, K), for standardised features."""
    logits = features @ weights[:-1] + weights[-1]
    return (logits.sigmoid() if multilabel else logits.softmax(1)).numpy().astype(np.float64)


def log_loss(probabilities: Array, label: NDArray[np.int64]) -> float:
    """Return the mean log-loss of samples, summed over the classes if there are several labels."""
    clipped = np.clip(probabilities, 1e-7, 1 - 1e-7)
    if label.ndim == 1:
        return float(-np.log(clipped[np.arange(len(label)), label]).mean())
    return float(-(label * np.log(clipped) + (1 - label) * np.log(1 - clipped)).sum(1).mean())
