"""The correlation loss: how well image and text latents of the same samples agree."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robusttune.ranks import sum_over_ranks


class Moments(NamedTuple):
    """Centred second moments of ``M`` pairs of views, over all rows that count on all ranks.

    Attributes:
        rows: () number of rows.
        s11: (M, c, c) covariance of the first view.
        s22: (M, c, c) covariance of the second.
        s12: (M, c, c) cross-covariance.
    """

    rows: Tensor
    s11: Tensor
    s22: Tensor
    s12: Tensor


class CorrelationLoss(nn.Module):
    """Deep CCA (Andrew et al. 2013) between two views: minus the mean canonical correlation, in [-1, 0].

    Whitening is by Cholesky factors, never by ``eigh``: ``L1^-1 S12 L2^-T`` has the singular values of
    ``S11^-1/2 S12 S22^-1/2``, and the gradient of their sum, ``U V^T``, is finite even where they repeat.

    Args:
        views: number ``M`` of pairs of views (one a layer).
        width: ``c``, the width of each view.
        momentum: share of the running moments of earlier steps, through which no gradient flows, in [0, 1); 0 is off.
    """

    running: Tensor
    steps: Tensor

    def __init__(self, views: int, width: int, momentum: float = 0.0) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("running", torch.zeros(3, views, width, width))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, first: Tensor, second: Tensor, counted: Tensor) -> Tensor:
        """Mean over the views. Exactly 0, and still connected, with fewer than 2 rows.

        Args:
            first: (M, B, c).
            second: (M, B, c).
            counted: (B,) bool, the rows to correlate; elsewhere the views may hold anything.

        Returns:
            () in float64 (float32 on devices without it).
        """
        moments = gather_moments(first, second, counted)
        if self.momentum > 0 and self.training:
            moments = self._smooth(moments)
        return -correlation(moments) / first.shape[-1]

    def _smooth(self, moments: Moments) -> Moments:
        """Moments mixed with those of earlier steps, the mixture's weights summing to 1 from the first step on."""
        if moments.rows < 2:
            return moments
        fresh = torch.stack(moments[1:])
        self.steps += 1
        mixed = self.momentum * self.running + (1 - self.momentum) * fresh
        self.running = mixed.detach().to(self.running.dtype)
        s11, s22, s12 = mixed / (1 - self.momentum ** self.steps.item())
        return Moments(moments.rows, s11, s22, s12)


def gather_moments(first: Tensor, second: Tensor, counted: Tensor) -> Moments:
    """Moments over the counted rows of all ranks: sums are reduced with gradient, rows never travel.

    Every rank takes part, one without any row with zeros.
    """
    rows = counted.view(1, -1, 1)
    dtype = torch.float32 if first.device.type == "mps" else torch.float64
    x, y = (torch.where(rows, view.to(dtype), 0.0) for view in (first, second))
    total = sum_over_ranks(counted.sum().to(dtype))
    means = sum_over_ranks(torch.stack([x.sum(1), y.sum(1)])) / total.clamp(min=1)
    x, y = (torch.where(rows, view - mean.unsqueeze(1), 0.0) for view, mean in ((x, means[0]), (y, means[1])))
    s11, s22, s12 = sum_over_ranks(torch.stack([x.mT @ x, y.mT @ y, x.mT @ y])) / (total - 1).clamp(min=1)
    return Moments(total, s11, s22, s12)


def correlation(moments: Moments, ridge: float = 1e-3) -> Tensor:
    """Sum of the canonical correlations, in [0, c], averaged over the views.

    It is 0 with fewer than 2 rows, and NaN where the moments are not finite.

    Args:
        moments: of the views.
        ridge: what is added to each variance, as a share of the mean variance; it lowers the correlations.
    """
    finite = torch.stack(moments[1:]).isfinite().all()
    s11, s22, s12 = (torch.where(finite, s, 0.0) for s in moments[1:])
    lower1, lower2 = (torch.linalg.cholesky(_ridged(s, ridge)) for s in (s11, s22))
    whitened = torch.linalg.solve_triangular(lower1, s12, upper=False)
    whitened = torch.linalg.solve_triangular(lower2, whitened.mT, upper=False)
    total = torch.linalg.svdvals(whitened).sum(-1).mean()
    return torch.where(finite, torch.where(moments.rows >= 2, total, total * 0.0), torch.nan)


def layer_correlations(first: Tensor, second: Tensor) -> Tensor:
    """(M,) mean canonical correlation, in [0, 1], of each of ``M`` pairs of views, of rows of this rank alone.

    Args:
        first: (M, N, c).
        second: (M, N, c).
    """
    x, y = (view.double() - view.double().mean(1, keepdim=True) for view in (first, second))
    covariances = [part / max(1, first.shape[1] - 1) for part in (x.mT @ x, y.mT @ y, x.mT @ y)]
    rows = torch.tensor(first.shape[1])
    pairs = zip(*(part.unsqueeze(1) for part in covariances), strict=True)
    return torch.stack([correlation(Moments(rows, *pair)) for pair in pairs]) / first.shape[-1]


def _ridged(covariance: Tensor, share: float) -> Tensor:
    """Covariance (M, c, c) with a ridge that follows its scale, so that it can be factorised."""
    width = covariance.shape[-1]
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    ridge = share * trace / width + 1e-6
    return covariance + ridge.view(-1, 1, 1) * torch.eye(width, dtype=covariance.dtype, device=covariance.device)


def shuffled_correlation(first: Tensor, second: Tensor, counted: Tensor) -> Tensor:
    """Mean canonical correlation, in [0, 1], of pairs that do not belong together: the level that chance reaches.

    Each counted row of the first view meets the next counted row of the second on the same rank. Same shapes as
    `CorrelationLoss.forward`.
    """
    with torch.no_grad():
        x, y = first[:, counted], second[:, counted].roll(1, dims=1)
        everyone = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
        return correlation(gather_moments(x, y, everyone)) / first.shape[-1]
