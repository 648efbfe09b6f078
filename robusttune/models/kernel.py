"""Kernel ridge regression on the outputs of an encoder: similarities to training samples, and the fit to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from robusttune.models.fitted import Labels
from robusttune.models.logistic import rotate
from robusttune.models.standardised import Standardised, regression
from robusttune.models.temperatures import fit_temperature
from robusttune.types import Facts, Widths

MOST_CENTRES = 1000  # training samples that others are compared with
GAMMA = 2.0  # of the RBF kernel exp(-gamma (1 - cosine))
PENALTIES = [10 ** (step / 2) for step in range(-8, 4)]  # 1e-4 to 30, relative to the mean variance
SMALLEST_EIGENVALUE = 1e-8  # relative to the largest, of the kernel between the centres


class SimilarModality(Standardised):
    """The standardised features of one modality, their similarities to training samples, and a regression on both.

    The similarity of two samples is the mean, over the pooled embedding and the mean token of each layer, of the kernel
    ``exp(-2 (1 - cosine))`` on standardised features. The encoder's outputs have equal weight, whatever their width.

    Args:
        layers: False to read the pooled embedding alone, otherwise the layers, too.
        widths: Widths of the encoder's outputs.
        facts: Class names and frequencies of the training data, and the number of training samples.

    Attributes:
        centres: Standardised features of the training samples to compare with, shape (m, d).
    """

    centres: Tensor

    def __init__(self, layers: bool | None, widths: Widths, facts: Facts) -> None:
        super().__init__(layers, widths, facts)
        self.parts = [widths.pooled, *([] if layers is False else widths.layers)]
        count = min(MOST_CENTRES, facts.training_samples or MOST_CENTRES)
        self.register_buffer("centres", torch.zeros(count, self.width))
        self.alone = regression(self.width + count, facts)

    @property
    def output_width(self) -> int:
        """Number of features that `forward` returns."""
        return self.width + len(self.centres)

    def choose_centres(self, standardised: Tensor, seed: int) -> None:
        """Choose training samples to compare with, from their standardised features, shape (N, d).

        Fewer than there is room for leave zeros, which have no weight.
        """
        order = torch.randperm(len(standardised), generator=torch.Generator().manual_seed(seed))
        chosen = order[: len(self.centres)].sort().values.to(standardised.device)
        self.centres.zero_()
        self.centres[: len(chosen)] = standardised[chosen].to(self.centres)

    def similarities(self, standardised: Tensor, centres: Tensor) -> Tensor:
        """Return the similarities (B, m) of standardised features (B, d) to centres (m, d)."""
        rows, columns = torch.split(standardised, self.parts, 1), torch.split(centres, self.parts, 1)
        total = standardised.new_zeros(len(standardised), len(centres))
        for own, other in zip(rows, columns, strict=True):
            cosine = functional.normalize(own, dim=1) @ functional.normalize(other, dim=1).mT
            total = total + (GAMMA * (cosine - 1)).exp()
        return total / len(self.parts)

    def forward(self, features: Tensor) -> Tensor:
        """Return standardised features and similarities, shape (B, d + m)."""
        standardised = super().forward(features)
        return torch.cat([standardised, self.similarities(standardised, self.centres.to(standardised))], 1)


class Basis(NamedTuple):
    """Coordinates in which the scalar product of two samples is their similarity (Nyström).

    Attributes:
        values: Coordinates of ``N`` samples, shape (N, r), float64.
        weights: Weights of the similarities to the ``m`` centres in each coordinate, shape (m, r), float64.
    """

    values: Tensor
    weights: Tensor

    @classmethod
    def join(cls, bases: Sequence[Basis]) -> Basis:
        """Return coordinates in which the similarities of several modalities are added."""
        values, weights = zip(*bases, strict=True)
        return cls(torch.cat(values, 1), torch.block_diag(*weights))  # type: ignore[no-untyped-call]

    @classmethod
    def of(cls, part: SimilarModality, standardised: Tensor, present: Tensor) -> Basis:
        """Return the coordinates of standardised features, shape (N, d), float64; 0 where the modality is absent."""
        centres = part.centres.to(standardised)
        kernel = part.similarities(centres, centres)
        real = centres.any(1)
        kernel = torch.where(real & real.unsqueeze(1), kernel, 0.0)
        eigenvalues, vectors = torch.linalg.eigh(kernel)
        kept = eigenvalues > SMALLEST_EIGENVALUE * eigenvalues.max().clamp(min=1e-12)
        weights = vectors[:, kept] * eigenvalues[kept].rsqrt()
        values = part.similarities(standardised, centres) @ weights
        return cls(torch.where(present.unsqueeze(1), values, 0.0), weights)


class Ridge(NamedTuple):
    """A ridge regression of 0/1 labels, whose predictions are scaled to logits.

    Attributes:
        weights: Weights, shape (r, C), float64.
        biases: Biases, shape (C,), float64.
        loss: Log-loss of held-out rows.
        held_out: Logits of its ``N`` rows from fits to other rows, shape (N, C), float64.
    """

    weights: Tensor
    biases: Tensor
    loss: float
    held_out: Tensor


def fit_ridge(features: Tensor, labels: Labels) -> Ridge:
    """Fit ridge regressions with the penalty of the lowest cross-validated log-loss. Nothing is iterated.

    The residual of held-out rows follows from the fit to all rows: ``(I - H)^-1`` times their residual, where ``H`` is
    the part of the hat matrix between them (An, Liu and Venkatesh 2007).

    Args:
        features: Features, shape (N, r), float64.
        labels: Labels and folds of the rows.
    """
    mean, level = features.mean(0), labels.target.mean(0)
    rotated, axes = rotate(features - mean)
    target = labels.target - level
    variance, middle = rotated.square().sum(0), 0.5 if labels.multilabel else 0.0
    products, best = rotated.mT @ target, None
    for penalty in PENALTIES:
        inverse = 1 / (variance + penalty * variance.mean() * len(variance) / len(rotated))
        weights = inverse.unsqueeze(1) * products
        residual = _held_out_residual(rotated, target - rotated @ weights, inverse, labels.fold)
        scores = labels.target - residual - middle
        scale = 1 / fit_temperature(scores, labels.label)
        loss = labels.log_loss(scores * scale)
        if best is None or loss < best.loss:
            turned = scale * (axes.mT @ weights)
            biases = scale * (level - middle) - mean @ turned
            best = Ridge(turned, biases, loss, scores * scale)
    assert best is not None
    return best


def _held_out_residual(features: Tensor, residual: Tensor, inverse: Tensor, fold: Tensor) -> Tensor:
    """Return the residuals (N, C) that rows have if their fold is left out.

    Args:
        features: Centred features along principal axes, shape (N, r).
        residual: Residuals of the fit to all rows, shape (N, C).
        inverse: Inverse of variance plus penalty along the axes, shape (r,).
        fold: Fold of each row, shape (N,).
    """
    found = torch.empty_like(residual)
    for number in range(int(fold.max()) + 1):
        rows = fold == number
        own = features[rows]
        hat = (own * inverse) @ own.mT + 1 / len(features)
        found[rows] = torch.linalg.solve(torch.eye(len(own)).to(hat) - hat, residual[rows])
    return found
