"""Temperature scaling, with one temperature per pattern of present modalities: both, image alone, text alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.predictions import probabilities
from robusttune.ranks import alone, highest_over_ranks, total_over_ranks
from robusttune.types import PATTERNS, View

VIEWS = (View(), View(text=None), View(image=None))  # the view of each pattern, for all samples that can show it
COLDEST, HOTTEST = 0.05, 20.0
STEPS = 60  # at most; bisection alone, which a step falls back on, would need 40
TOLERANCE = 1e-7  # relative size of the last step of Newton's method; the error is about its square

Blocks = Callable[[int], Iterable[tuple[Tensor, Tensor]]]  # number of a pattern -> logits (n, C), labels (n,) or (n, C)


def blocks_of(logits: Tensor, label: Tensor, present: Tensor, views: Sequence[View]) -> Blocks:
    """Return the samples that can show each pattern, as one block.

    Args:
        logits: Class scores, shape (W, N, C).
        label: Class indices, shape (N,), or 0/1 per class, shape (N, C), in multi-label data.
        present: Flags that the sample has an image and that it has a text, shape (N, 2), bool.
        views: Views of the logits, which include `VIEWS`.
    """

    def of_pattern(number: int) -> list[tuple[Tensor, Tensor]]:
        """Return the samples of a pattern."""
        rows = VIEWS[number].patterns(present) == number
        return [(logits[views.index(VIEWS[number])][rows], label[rows])]

    return of_pattern


class Temperatures(nn.Module):
    """One temperature for each pattern of present modalities, by which logits are divided. All are 1 at first.

    Attributes:
        values: Temperatures of the patterns in `PATTERNS`, and one for samples with neither modality, which stays 1;
            shape (4,), float32.

    Example:
        >>> temperatures = Temperatures()
        >>> temperatures.values[1] = 2.0  # of the image alone
        >>> temperatures(torch.tensor([[[4.0, -4.0]]]), torch.tensor([[True, False]]), [View()])
        tensor([[[ 2., -2.]]])
    """

    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("values", torch.ones(len(PATTERNS) + 1))

    def forward(self, logits: Tensor, present: Tensor, views: Sequence[View]) -> Tensor:
        """Divide logits by the temperature of the modalities that are present.

        Args:
            logits: Class scores of ``W`` views of ``B`` samples, shape (W, B, C).
            present: Flags that the sample has an image and that it has a text, shape (B, 2), bool.
            views: ``W`` views of the samples.

        Returns:
            Calibrated logits, shape (W, B, C).
        """
        pattern = torch.stack([view.patterns(present) for view in views])
        return logits / self.values[pattern].unsqueeze(2)

    def fit(self, blocks: Blocks) -> list[float]:
        """Fit and keep the temperature of each pattern. Every rank must call this.

        Args:
            blocks: Function that starts a pass over this rank's samples that can show a pattern, with class scores that
                no temperature has divided, such as `blocks_of`.

        Returns:
            Fitted temperatures in the order of `PATTERNS`; 1 for a pattern without samples.
        """
        fitted = [fit_to_blocks(partial(blocks, number)) for number in range(len(PATTERNS))]
        self.keep(fitted)
        return fitted

    def keep(self, fitted: Sequence[float]) -> None:
        """Keep fitted temperatures, in the order of `PATTERNS`."""
        self.values[: len(PATTERNS)] = torch.tensor(fitted)


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """Fit a temperature to the samples of this process, see `fit_to_blocks`.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), or 0/1 per class, shape (N, C), in multi-label data.

    Example:
        >>> logits = 10 * torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> fit_temperature(logits, torch.tensor([0, 0, 1, 1])) > 1
        True
    """
    with alone():
        return fit_to_blocks(lambda: [(logits, label)])


def fit_to_blocks(blocks: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> float:
    """Fit a temperature that minimises the cross-entropy (Guo et al. 2017, arXiv 1706.04599), in [0.05, 20].

    The cross-entropy is convex in the inverse temperature, so Newton's method, with bisection where it leaves the known
    range, finds the zero of its derivative. The derivatives are sums over the samples of all ranks, each of which must
    call this. An additional sample with equal probabilities for all classes is counted (as in Platt 1999). Without it a
    model that is always right would get the lowest temperature.

    Args:
        blocks: Function that starts a pass over the samples of this rank: class scores and labels, see
            `fit_temperature`. There is at least one block.

    Returns:
        Temperature; 1 if there are no samples, or if all rows of class scores are equal.
    """
    samples = total_over_ranks(torch.tensor(sum(len(logits) for logits, _ in blocks())))
    if samples == 0 or _are_equal(blocks()):
        return 1.0
    low, high, smooth = 1 / HOTTEST, 1 / COLDEST, 1 / (int(samples) + 1)
    middle, limits, tried = sqrt(low * high), (low, high), set[float]()
    for _ in range(STEPS):
        parts = [_derivatives(middle, smooth, logits, label) for logits, label in blocks()]
        slope, curvature = total_over_ranks(torch.stack(parts).sum(0)).tolist()
        low, high = (middle, high) if slope < 0 else (low, middle)
        tried.add(middle)
        newton = middle - slope / curvature if curvature > 0 else 0.0
        if abs(newton - middle) <= TOLERANCE * middle:
            return 1 / min(max(newton, limits[0]), limits[1])
        if low == high:  # The zero lies beyond this limit.
            return 1 / low
        inside = min(max(newton, low), high)
        middle = sqrt(low * high) if inside in tried else inside
    return 1 / middle


def _are_equal(blocks: Iterable[tuple[Tensor, Tensor]]) -> bool:
    """Return whether all rows of class scores of all ranks are equal."""
    bounds = [torch.cat([logits.amax(0), -logits.amin(0)]) for logits, _ in blocks if len(logits)]
    width = highest_over_ranks(torch.tensor(max((len(bound) for bound in bounds), default=0)))
    lowest = torch.full((int(width),), -torch.inf, dtype=torch.float64)
    above, below = highest_over_ranks(torch.stack([lowest, *(b.double() for b in bounds)]).amax(0)).chunk(2)
    return bool((above == -below).all())


def _derivatives(inverse: float, smooth: float, logits: Tensor, label: Tensor) -> Tensor:
    """Return the derivatives of the summed cross-entropy by the inverse temperature: the first, and the second."""
    is_multilabel, classes = label.dim() == 2, logits.shape[1]
    hot = label if is_multilabel else functional.one_hot(label, classes)
    target = (1 - smooth) * hot.double() + smooth / (2 if is_multilabel else classes)
    logits = logits.double()
    predicted = probabilities(logits * inverse, is_multilabel)
    slope = ((predicted - target) * logits).sum()
    if is_multilabel:
        return torch.stack([slope, (predicted * (1 - predicted) * logits.square()).sum()])
    mean = (predicted * logits).sum(1, keepdim=True)
    return torch.stack([slope, (predicted * (logits - mean).square()).sum()])
