"""Correlation loss of deep CCA: how strongly the image and text latents of the same samples correlate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from robusttune.ranks import sum_over_ranks


class Moments(NamedTuple):
    """Centred second moments of ``M`` pairs of views, over all counted rows of all ranks.

    Attributes:
        rows: Number of rows, shape ().
        s11: Covariance of the first view, shape (M, c, c).
        s22: Covariance of the second view, shape (M, c, c).
        s12: Cross-covariance of both views, shape (M, c, c).
    """

    rows: Tensor
    s11: Tensor
    s22: Tensor
    s12: Tensor


class CorrelationLoss(nn.Module):
    """The deep CCA loss (Andrew et al. 2013) of MoLT: minus the mean canonical correlation of two views, in [-1, 0].

    The covariances are whitened with Cholesky factors rather than ``eigh``, whose gradient divides by eigenvalue gaps.
    ``L1^-1 S12 L2^-T`` has the same singular values as ``S11^-1/2 S12 S22^-1/2``. The gradient of their sum, ``U V^T``,
    is finite even for repeated values.

    Args:
        views: Number ``M`` of pairs of views, one per layer.
        width: Width ``c`` of each view.
        momentum: Weight of the running moments of earlier steps, in [0, 1). No gradient flows through them. 0 turns the
            running moments off.

    Attributes:
        running: Running moments of earlier steps, shape (3, M, c, c).
        steps: Number of steps that ``running`` contains, shape ().

    Example:
        >>> import torch
        >>> views = torch.randn(1, 256, 4, generator=torch.Generator().manual_seed(0))
        >>> loss = CorrelationLoss(views=1, width=4)
        >>> round(loss(views, 2 * views + 1, torch.ones(256, dtype=torch.bool)).item(), 2)
        -1.0
    """

    running: Tensor
    steps: Tensor

    def __init__(self, views: int, width: int, momentum: float = 0.0) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("running", torch.zeros(3, views, width, width))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, first: Tensor, second: Tensor, counted: Tensor) -> Tensor:
        """Compute the loss, averaged over the pairs of views.

        With fewer than 2 counted rows it is exactly 0 and still connected to the graph.

        Args:
            first: First views, shape (M, B, c).
            second: Second views, shape (M, B, c).
            counted: Mask of the rows to correlate, shape (B,), bool. The views may have any value in other rows.

        Returns:
            Loss, shape (), float64 (float32 on devices without it).
        """
        moments = gather_moments(first, second, counted)
        if self.momentum > 0 and self.training:
            moments = self._smooth(moments)
        return -correlation(moments) / first.shape[-1]

    def _smooth(self, moments: Moments) -> Moments:
        """Mix the moments with those of earlier steps. The weights of the mixture sum to 1 from the first step on.

        A step with fewer than 2 counted rows changes nothing. It is masked rather than skipped, because a branch on the
        number of rows would wait for the device in every step.
        """
        counts, current = moments.rows >= 2, torch.stack(moments[1:])
        self.steps += counts
        mixed = self.momentum * self.running + (1 - self.momentum) * current
        self.running = torch.where(counts, mixed.detach().to(self.running.dtype), self.running)
        # Before the first step the sum of the weights is 0, and its quotient would make the masked gradient NaN.
        weights = torch.where(counts, 1 - self.momentum ** self.steps.to(mixed.dtype), 1.0)
        s11, s22, s12 = torch.where(counts, mixed / weights, current)
        return Moments(moments.rows, s11, s22, s12)


def gather_moments(first: Tensor, second: Tensor, counted: Tensor) -> Moments:
    """Compute the moments over the counted rows of all ranks.

    Sums are all-reduced with gradient; rows are not exchanged. Every rank takes part, even one without a counted row.

    Args:
        first: First views, shape (M, B, c).
        second: Second views, shape (M, B, c).
        counted: Mask of the rows that count, shape (B,), bool.
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
    """Return the sum of the canonical correlations, averaged over the pairs of views, in [0, c].

    It is 0 with fewer than 2 rows, and NaN if the moments are not finite or a covariance is not positive definite.

    Args:
        moments: Moments of the views.
        ridge: Regularisation that is added to each variance, as a fraction of the mean variance. It lowers the
            correlations.
    """
    finite = torch.stack(moments[1:]).isfinite().all()
    s11, s22, s12 = (torch.where(finite, s, 0.0) for s in moments[1:])
    # `cholesky` would wait for the device to report a failure; `svdvals` below waits, and has no variant that does not.
    (lower1, failed1), (lower2, failed2) = (torch.linalg.cholesky_ex(_ridged(s, ridge)) for s in (s11, s22))
    finite = finite & (torch.stack([failed1, failed2]) == 0).all()
    whitened = torch.linalg.solve_triangular(lower1, s12, upper=False)
    whitened = torch.linalg.solve_triangular(lower2, whitened.mT, upper=False)
    total = torch.linalg.svdvals(whitened).sum(-1).mean()
    return torch.where(finite, torch.where(moments.rows >= 2, total, total * 0.0), torch.nan)


def layer_correlations(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean canonical correlation of each of ``M`` pairs of views, shape (M,), in [0, 1], on this rank alone.

    Args:
        first: First views, shape (M, N, c).
        second: Second views, shape (M, N, c).

    Example:
        >>> import torch
        >>> views = torch.randn(2, 100, 3, generator=torch.Generator().manual_seed(0))
        >>> [round(value, 2) for value in layer_correlations(views, -views).tolist()]
        [1.0, 1.0]
    """
    x, y = (view.double() - view.double().mean(1, keepdim=True) for view in (first, second))
    covariances = [part / max(1, first.shape[1] - 1) for part in (x.mT @ x, y.mT @ y, x.mT @ y)]
    rows = torch.tensor(first.shape[1])
    pairs = zip(*(part.unsqueeze(1) for part in covariances), strict=True)
    return torch.stack([correlation(Moments(rows, *pair)) for pair in pairs]) / first.shape[-1]


def _ridged(covariance: Tensor, fraction: float) -> Tensor:
    """Add a ridge proportional to the scale of each covariance (M, c, c), so that it is positive definite."""
    width = covariance.shape[-1]
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    ridge = fraction * trace / width + 1e-6
    return covariance + ridge.view(-1, 1, 1) * torch.eye(width, dtype=covariance.dtype, device=covariance.device)


def shuffled_correlation(first: Tensor, second: Tensor, counted: Tensor) -> Tensor:
    """Return the mean canonical correlation of mismatched pairs, in [0, 1]: the level that is reached by chance.

    Each counted row of the first view is paired with the previous counted row of the second one, on the same rank.

    Args:
        first: First views, shape (M, B, c).
        second: Second views, shape (M, B, c).
        counted: Mask of the rows that count, shape (B,), bool.
    """
    with torch.no_grad():
        # A boolean index would wait for the device, so the counted rows are moved to the front.
        front, number = counted.int().argsort(descending=True, stable=True), counted.sum()
        position = torch.arange(len(counted), device=counted.device)
        x, y = first[:, front], second[:, front[(position - 1) % number.clamp(min=1)]]
        return correlation(gather_moments(x, y, position < number)) / first.shape[-1]
