"""Temperature scaling, with one temperature per pattern of present modalities: both, image alone, text alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.predictions import probabilities
from robusttune.types import PATTERNS, View

VIEWS = (View(), View(text=None), View(image=None))  # the view of each pattern, for all samples that can show it
COLDEST, HOTTEST = 0.05, 20.0
HALVINGS = 40


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

    def fit(self, logits: Tensor, label: Tensor, present: Tensor, views: Sequence[View]) -> list[float]:
        """Fit and keep the temperature of each pattern. A sample counts once per pattern that it can show.

        Args:
            logits: Class scores that no temperature has divided, shape (W, N, C).
            label: Class indices, shape (N,), or 0/1 per class, shape (N, C), in multi-label data.
            present: Flags that the sample has an image and that it has a text, shape (N, 2), bool.
            views: Views of the logits, which include `VIEWS`.

        Returns:
            Fitted temperatures in the order of `PATTERNS`; 1 for a pattern without samples.
        """
        fitted = []
        for number, view in enumerate(VIEWS):
            rows = view.patterns(present) == number
            fitted.append(fit_temperature(logits[views.index(view)][rows], label[rows]))
        self.keep(fitted)
        return fitted

    def keep(self, fitted: Sequence[float]) -> None:
        """Keep fitted temperatures, in the order of `PATTERNS`."""
        self.values[: len(PATTERNS)] = torch.tensor(fitted)


def fit_temperature(logits: Tensor, label: Tensor) -> float:
    """Fit a temperature that minimises the cross-entropy (Guo et al. 2017, arXiv 1706.04599), in [0.05, 20].

    The cross-entropy is convex in the inverse temperature, so bisection finds the zero of its derivative. An additional
    sample with equal probabilities for all classes is counted (as in Platt 1999). Without it a model that is always
    right would get the lowest temperature.

    Args:
        logits: Class scores, shape (N, C).
        label: Class indices, shape (N,), or 0/1 per class, shape (N, C), in multi-label data.

    Returns:
        Temperature; 1 if there are no samples, or if all rows of ``logits`` are equal.

    Example:
        >>> logits = 10 * torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> fit_temperature(logits, torch.tensor([0, 0, 1, 1])) > 1
        True
    """
    if len(logits) == 0 or bool((logits == logits[0]).all()):
        return 1.0
    classes, smooth = logits.shape[1], 1 / (len(logits) + 1)
    hot = functional.one_hot(label, classes) if label.dim() == 1 else label
    target = (1 - smooth) * hot.double() + smooth / (classes if label.dim() == 1 else 2)
    logits, low, high = logits.double(), 1 / HOTTEST, 1 / COLDEST
    for _ in range(HALVINGS):
        middle = sqrt(low * high)
        predicted = probabilities(logits * middle, multilabel=label.dim() == 2)
        slope = ((predicted - target) * logits).sum()  # derivative of the cross-entropy by the inverse temperature
        low, high = (middle, high) if slope < 0 else (low, middle)
    return 1 / sqrt(low * high)
