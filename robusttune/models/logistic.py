"""Logistic regression with an L2 penalty: L-BFGS to convergence, and the choice of C by cross-validated log-loss."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

FOLDS = 5
LEAST_ROWS = 4  # With fewer rows there is nothing to cross-validate.
GRID = [10 ** (step / 2) for step in range(-8, 5)]  # 1e-4 to 100, two values per power of ten
DEFAULT_C = GRID[4]  # 1e-2
PATIENCE = 2  # values of C that may be worse than the best before the search ends
NEVER = -1e4  # logit of a class that a fit has no rows of; finite, so that 0 times it is 0
ROUGH, EXACT = 1e-3, 1e-6  # largest absolute gradient by scaled weights, in cross-validation and in the final fit
MOST_ITERATIONS = 2000


class Rows(NamedTuple):
    """The training rows of a logistic regression.

    Attributes:
        features: Standardised features, shape (N, d), float64.
        target: 0/1 per class, shape (N, C), float64. In multi-class data each row has exactly one 1.
        multilabel: True for one binary regression per class, False for a softmax over the classes.
    """

    features: Tensor
    target: Tensor
    multilabel: bool


class Chosen(NamedTuple):
    """The result of a cross-validation.

    Attributes:
        c: Value of C with the lowest log-loss.
        loss: Mean log-loss of held-out rows; NaN if nothing could be cross-validated.
        weights: Mean weights of the folds for this C, shape (C, d + 1); None if nothing could be cross-validated.
        held_out: Logits of the held-out rows, shape (N, C), float64; None if nothing could be cross-validated. For a
            class that the other folds have no row of, they are the lowest that a held-out row has.
    """

    c: float
    loss: float
    weights: Tensor | None
    held_out: Tensor | None


def stratified_folds(target: Tensor, sample_id: Sequence[str], seed: int, folds: int = FOLDS) -> Tensor:
    """Assign each row to a fold such that the folds have about the same number of rows of each class.

    The assignment depends on ids, labels and the seed alone, not on the order of the rows. A row with several classes
    counts for its rarest one.

    Args:
        target: 0/1 per class, shape (N, C).
        sample_id: Ids of the rows.
        seed: Seed.
        folds: Number of folds.

    Returns:
        Folds from 0 to ``folds - 1``, shape (N,), int64.

    Example:
        >>> stratified_folds(torch.eye(2).repeat(2, 1), ["a", "b", "c", "d"], seed=0, folds=2).bincount()
        tensor([2, 2])
    """
    sizes = target.sum(0)
    rarest = torch.where(target > 0, sizes, torch.inf).argmin(1).tolist()
    digests = [hashlib.blake2b(f"{seed}/{each}".encode(errors="surrogatepass")).digest() for each in sample_id]
    order = sorted(range(len(rarest)), key=lambda row: (rarest[row], digests[row]))
    found = torch.empty(len(rarest), dtype=torch.int64)
    found[order] = torch.arange(len(order)) % folds
    return found


def choose_c(rows: Rows, fold: Tensor, grid: Sequence[float] = GRID) -> Chosen:
    """Choose C by the log-loss of held-out rows. All folds are fitted together, from strong to weak regularisation.

    A held-out row counts if the rows of the other folds have its class, since a class without rows cannot be learned.

    Args:
        rows: Training rows.
        fold: Fold of each row, shape (N,), int64.
        grid: Values of C to choose from, in ascending order.

    Returns:
        Value with the lowest loss. If no held-out row counts, it is `DEFAULT_C`, or a given value, and its loss NaN.
    """
    default = Chosen(DEFAULT_C if DEFAULT_C in grid else grid[0], float("nan"), None, None)
    if len(rows.features) < LEAST_ROWS:
        return default
    rows = rows._replace(features=rows.features.float(), target=rows.target.float())  # enough to compare values of C
    kept = (torch.arange(int(fold.max()) + 1, device=fold.device).unsqueeze(1) != fold).to(rows.target.dtype)
    known, start = learnable(rows, kept), None
    best, worse = default, 0
    for c in grid:
        start = minimise(rows, kept, c, start, ROUGH)
        loss, held_out = _held_out(rows, fold, known, start)
        if isnan(loss):
            return default
        if not loss >= best.loss:  # This form replaces NaN, too.
            best, worse = Chosen(c, loss, start.mean(0).double(), held_out.double()), 0
        elif (worse := worse + 1) == PATIENCE:
            break
    return best


def fit(rows: Rows, c: float, start: Tensor | None = None) -> Tensor:
    """Fit a logistic regression to all rows.

    The objective is that of scikit-learn: half the squared norm of the weights + C x the sum of the log-losses. Biases
    are not penalised.

    Args:
        rows: Training rows.
        c: Inverse strength of the regularisation, above 0.
        start: Weights to start from, shape (C, d + 1); None to start from the class frequencies.

    Returns:
        Weights and, in the last column, biases, shape (C, d + 1), float64. They are 0 for classes that cannot be
        learned, see `learnable`.

    Example:
        >>> features = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        >>> weights = fit(Rows(features, torch.eye(2, dtype=torch.float64), multilabel=False), c=1.0)
        >>> bool(weights[1, 0] > 0), round(float(weights[:, 0].sum()), 4)
        (True, 0.0)
    """
    all_rows = rows.target.new_ones(1, len(rows.target))
    return minimise(rows, all_rows, c, None if start is None else start.unsqueeze(0), EXACT)[0]


def rotate(features: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate features to their principal axes, without those along which they do not vary.

    The penalty does not change under a rotation, and the best weights along the other axes are 0, so the result is
    exact. L-BFGS needs few iterations along principal axes, see `minimise`.

    Args:
        features: Centred features, shape (N, d), float64.

    Returns:
        Rotated features, shape (N, r), where r <= min(N, d), and the orthonormal axes that turn weights back, (r, d).
    """
    if features.shape[1] <= features.shape[0]:
        variance, axes = torch.linalg.eigh(features.mT @ features)
        axes = axes[:, _distinct(variance)]
        return features @ axes, axes.mT.contiguous()
    variance, left = torch.linalg.eigh(features @ features.mT)
    kept = _distinct(variance)
    deviation = variance[kept].sqrt()
    return left[:, kept] * deviation, (left[:, kept].mT @ features) / deviation.unsqueeze(1)


def _distinct(variance: Tensor) -> Tensor:
    """Return which of the variances along the axes are not 0 up to rounding, (d,), bool."""
    return variance > max(1e-12 * float(variance.sum()), torch.finfo(variance.dtype).tiny)


def rotate_back(weights: Tensor, axes: Tensor) -> Tensor:
    """Return the weights (C, d) of the original features, given those of `rotate`'s features (C, r), and its axes."""
    return weights @ axes


def learnable(rows: Rows, kept: Tensor) -> Tensor:
    """Return which classes each of ``K`` fits can learn, shape (K, C), bool.

    A class needs a row, in multi-label data also a row without it.

    Args:
        rows: Training rows.
        kept: Weight of each row in each fit, 0 or 1, shape (K, N).
    """
    positives = kept @ rows.target
    return (positives > 0) & ((positives < kept.sum(1, keepdim=True)) if rows.multilabel else True)


def minimise(rows: Rows, kept: Tensor, c: float, start: Tensor | None, tolerance: float) -> Tensor:
    """Fit ``K`` logistic regressions to subsets of the same rows with one run of L-BFGS.

    It works on weights that are divided by the square root of their curvature at the class frequencies. For features
    along principal axes, that leaves few directions in which the curvature differs from 1.

    Args:
        rows: Training rows.
        kept: Weight of each row in each fit, 0 or 1, shape (K, N).
        c: Inverse strength of the regularisation.
        start: Weights to start from, shape (K, C, d + 1); None to start from the class frequencies.
        tolerance: The fit ends when no absolute gradient of the mean loss is larger.

    Returns:
        Weights and biases, shape (K, C, d + 1).
    """
    features = _with_ones(rows.features)
    known, sizes = learnable(rows, kept), kept.sum(1)
    share = (kept / sizes.unsqueeze(1)).mT.unsqueeze(2)  # (N, K, 1)
    penalty = (1 / (c * sizes)).view(-1, 1, 1).repeat(1, 1, features.shape[1])
    penalty[:, :, -1] = 0.0
    unit = _curvature(rows, kept, features.square(), penalty).rsqrt()
    values = _frequencies_alone(rows, kept) if start is None else start
    scaled = (values / unit).requires_grad_()
    solver = torch.optim.LBFGS(
        [scaled],
        max_iter=MOST_ITERATIONS,
        max_eval=2 * MOST_ITERATIONS,
        tolerance_grad=tolerance,
        tolerance_change=1e-4 * tolerance,  # Without it, rounding could keep the line search busy for ever.
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()
    def objective() -> float:
        """Set the gradient and return the value of the objective, summed over the fits."""
        values = scaled * unit
        losses, residual = _losses(rows, _logits(features, values), known)
        penalised = penalty * values
        gradient = (residual * share).flatten(1).mT @ features
        scaled.grad = unit * (gradient.view_as(values) + penalised)
        return float((losses * share).sum() + (penalised * values).sum() / 2)

    solver.step(objective)  # type: ignore[no-untyped-call]
    return scaled.detach() * unit


def _curvature(rows: Rows, kept: Tensor, squares: Tensor, penalty: Tensor) -> Tensor:
    """Return the diagonal of the Hessian at the class frequencies, shape (K, C, d + 1).

    Args:
        rows: Training rows.
        kept: Weight of each row in each fit, 0 or 1, shape (K, N).
        squares: Squared features, with a column of ones, shape (N, d + 1).
        penalty: Factor of the squared weights, shape (K, 1, d + 1).
    """
    sizes = kept.sum(1, keepdim=True)
    frequencies = (kept @ rows.target) / sizes
    return (frequencies * (1 - frequencies)).clamp(min=1e-6).unsqueeze(2) * (kept @ squares / sizes).unsqueeze(
        1
    ) + penalty


def _frequencies_alone(rows: Rows, kept: Tensor) -> Tensor:
    """Return the best weights without features, shape (K, C, d + 1): the biases are the logits of the frequencies."""
    frequencies = (kept @ rows.target) / kept.sum(1, keepdim=True)
    known = learnable(rows, kept)
    biases = torch.logit(frequencies) if rows.multilabel else frequencies.log()
    features = biases.new_zeros(*biases.shape, rows.features.shape[1])
    return torch.cat([features, torch.where(known, biases, 0.0).unsqueeze(2)], 2)


def _with_ones(features: Tensor) -> Tensor:
    """Append a column of ones, which the biases multiply."""
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


def _logits(features: Tensor, values: Tensor) -> Tensor:
    """Return the logits of each fit, shape (N, K, C), from features with a column of ones, shape (N, d + 1)."""
    return (features @ values.flatten(0, 1).mT).view(len(features), *values.shape[:2])


def _losses(rows: Rows, logits: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-losses by class, and their derivatives by the logits, shape (N, K, C) each.

    Args:
        rows: Training rows.
        logits: Logits, shape (N, K, C).
        known: Classes that each fit can learn, shape (K, C); the others contribute nothing.
    """
    target = rows.target.unsqueeze(1)
    if rows.multilabel:
        losses = functional.softplus(logits) - target * logits
        return losses * known, (logits.sigmoid() - target) * known
    log_probability = torch.where(known, logits, NEVER).log_softmax(2)
    return -target * log_probability, (log_probability.exp() - target) * known


def _held_out(rows: Rows, fold: Tensor, known: Tensor, values: Tensor) -> tuple[float, Tensor]:
    """Return the mean log-loss of held-out rows, over the classes that their fit can learn, and their logits (N, C).

    The loss is NaN without such rows.
    """
    of_fold = fold.view(-1, 1, 1).expand(-1, 1, len(rows.target[0]))
    logits = _logits(_with_ones(rows.features), values)
    losses, _ = _losses(rows, logits, known)
    own, possible = losses.gather(1, of_fold).squeeze(1), known[fold]
    counts = possible if rows.multilabel else (possible & (rows.target > 0))
    held_out = logits.gather(1, of_fold).squeeze(1)
    lowest = torch.where(possible, held_out, torch.inf).min()
    return float((own * counts).sum() / counts.sum()), torch.where(possible, held_out, lowest)
