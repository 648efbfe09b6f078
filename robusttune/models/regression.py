"""A logistic regression for samples that show one pattern of modalities, with features and C by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.counting import counted
from robusttune.models.fitted import Choice, Labels
from robusttune.models.logistic import GRID, Rows, choose_c, fit, learnable, rotate, rotate_back


class Regression(NamedTuple):
    """A logistic regression.

    Attributes:
        weights: Weights, shape (C, d), float64; 0 for features that were not chosen.
        biases: Biases, shape (C,), float64.
        rows: Mask of the rows that it was fitted to, shape (N,), bool.
        choice: Features and C.
        loss: Log-loss of held-out rows; NaN if there are too few rows for a cross-validation.
        held_out: Logits of its rows from fits to other rows, shape (N', C), float64; None without a cross-validation.
    """

    weights: Tensor
    biases: Tensor
    rows: Tensor
    choice: Choice
    loss: float
    held_out: Tensor | None

    def line(self, shown: str) -> str:
        """Describe the regression on ``shown`` in one line."""
        loss = "" if isnan(self.loss) else f", log-loss {self.loss:.3f} in cross-validation"
        return (
            f"logistic regression on {shown}: {counted(int(self.rows.sum()), 'sample')}, "
            f"{counted(int(self.choice.columns.sum()), 'feature')}, C {self.choice.c:.3g}{loss}"
        )


def fit_regression(
    features: Tensor, candidates: Sequence[Tensor], labels: Labels, rows: Tensor, c: float | None, log_prior: Tensor
) -> Regression | None:
    """Fit a logistic regression to some rows.

    Args:
        features: Standardised features, shape (N, d), float64.
        candidates: Sets of features to choose from by cross-validated log-loss, as masks of shape (d,), bool.
        labels: Labels and folds of all rows.
        rows: Mask of the rows to fit to, shape (N,), bool.
        c: Inverse strength of the penalty; None to choose it by cross-validated log-loss.
        log_prior: Logits of the class frequencies, shape (C,). Classes without rows keep them, relative to the others.

    Returns:
        Regression; None without rows.
    """
    if not rows.any():
        return None
    own, grid = labels.of_rows(rows), GRID if c is None else [c]
    rotated = [rotate(features[rows][:, columns]) for columns in candidates]
    options = [Rows(values, own.target, own.multilabel) for values, _ in rotated]
    chosen = [choose_c(option, own.fold, grid) for option in options]
    best = min(range(len(chosen)), key=lambda number: (isnan(chosen[number].loss), chosen[number].loss))
    found = fit(options[best], chosen[best].c, chosen[best].weights)
    columns = candidates[best]
    weights = found.new_zeros(len(log_prior), features.shape[1])
    weights[:, columns] = rotate_back(found[:, :-1], rotated[best][1])
    known = learnable(options[best], own.target.new_ones(1, len(own.target)))[0]
    prior = log_prior.to(found)
    shift = 0.0 if own.multilabel else (found[:, -1] - prior)[known].mean()
    biases = torch.where(known, found[:, -1], prior + shift)
    choice = Choice(columns, chosen[best].c)
    return Regression(weights, biases, rows, choice, chosen[best].loss, chosen[best].held_out)
