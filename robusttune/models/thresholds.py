"""Thresholds of multi-label predictions, fitted to maximise F1, for each pattern of present modalities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robusttune.models.temperatures import VIEWS
from robusttune.types import PATTERNS, View

DEFAULT = 0.5
LEAST_POSITIVES = 10  # samples of a class, and samples without it, for a threshold of its own
LIMITS = (0.01, 0.99)


class Thresholds(nn.Module):
    """The least probability of a predicted class, for each pattern of present modalities; 0.5 at first.

    Args:
        classes: Number of classes ``C``.
        value: Threshold of all classes, in (0, 1).

    Attributes:
        values: Thresholds of the patterns in `PATTERNS`, and of samples with neither modality, shape (4, C), float32.

    Example:
        >>> thresholds = Thresholds(classes=2)
        >>> thresholds.values[1] = torch.tensor([0.5, 0.25])  # of the image alone
        >>> thresholds.cuts[:2].round(decimals=2)
        tensor([[ 0.0000,  0.0000],
                [ 0.0000, -1.1000]])
    """

    values: Tensor

    def __init__(self, classes: int, value: float = DEFAULT) -> None:
        super().__init__()
        self.register_buffer("values", torch.full((len(PATTERNS) + 1, classes), value))

    @property
    def cuts(self) -> Tensor:
        """Return the least calibrated logit of each class if it is predicted, shape (4, C)."""
        return self.values.float().logit()

    def fit(self, logits: Tensor, label: Tensor, present: Tensor, views: Sequence[View]) -> Tensor:
        """Fit the thresholds of each pattern, see `fit_thresholds`. A sample counts once per pattern it can show.

        Args:
            logits: Calibrated logits, shape (W, N, C).
            label: 0/1 per class, shape (N, C).
            present: Flags that the sample has an image and that it has a text, shape (N, 2), bool.
            views: Views of the logits, which include `VIEWS`.

        Returns:
            Fitted thresholds in the order of `PATTERNS`, shape (3, C), for `keep`. A pattern without samples keeps its
            thresholds.
        """
        found = self.values[: len(PATTERNS)].cpu().clone()
        for number, view in enumerate(VIEWS):
            rows = view.patterns(present) == number
            if rows.any():
                found[number] = fit_thresholds(logits[views.index(view)][rows].sigmoid(), label[rows])
        return found

    def describe(self) -> str:
        """Describe the thresholds in one line.

        Example:
            >>> Thresholds(classes=3, value=0.25).describe()
            'a class is predicted from a probability of 0.25'
        """
        if bool((self.values == self.values[0, 0]).all()):
            return f"a class is predicted from a probability of {float(self.values[0, 0]):.3g}"
        parts = [
            f"{pattern} {float(values.min()):.2f} to {float(values.max()):.2f} (median {float(values.median()):.2f})"
            for pattern, values in zip(PATTERNS, self.values, strict=False)
        ]
        return f"a class is predicted from a probability that validation has fitted for its F1: {', '.join(parts)}"

    def keep(self, fitted: Tensor) -> None:
        """Keep fitted thresholds, in the order of `PATTERNS`, shape (3, C)."""
        self.values[: len(PATTERNS)] = fitted.to(self.values)


def fit_thresholds(probability: Tensor, label: Tensor) -> Tensor:
    """Fit thresholds: one for each class that has enough samples, and a common one for the others.

    The threshold of a class maximises its F1, and so all together maximise the macro average. The common one maximises
    the micro F1 of all classes. A threshold that is fitted to few positives would follow their noise (SCutFBR,
    Yang 2001).

    Args:
        probability: Class probabilities, shape (N, C).
        label: 0/1 per class, shape (N, C).

    Returns:
        Thresholds, shape (C,), in [0.01, 0.99].

    Example:
        >>> probability = torch.tensor([[0.1], [0.2], [0.3], [0.4]])
        >>> fit_thresholds(probability, torch.tensor([[0], [0], [1], [1]]))
        tensor([0.2500])
    """
    positives = label.sum(0)
    enough = (positives >= LEAST_POSITIVES) & (len(label) - positives >= LEAST_POSITIVES)
    common = best_threshold(probability.flatten(), label.flatten())
    own = [
        best_threshold(probability[:, number], label[:, number]) if has_enough else common
        for number, has_enough in enumerate(enough.tolist())
    ]
    return torch.tensor(own).clamp(*LIMITS)


def best_threshold(probability: Tensor, label: Tensor) -> float:
    """Return the threshold with the highest F1, in the middle between two probabilities; 0.5 without positives.

    Args:
        probability: Probabilities, shape (N,).
        label: 0 or 1, shape (N,).
    """
    if not label.any():
        return DEFAULT
    values, order = probability.double().sort(descending=True, stable=True)
    hits, predicted = label[order].double().cumsum(0), torch.arange(1, len(values) + 1, device=values.device)
    f1 = 2 * hits / (predicted + label.sum())
    below = torch.cat([values[1:], values.new_zeros(1)])
    f1[values == below] = -1.0  # Samples of equal probability are predicted together.
    best = int(f1.argmax())
    return float((values[best] + below[best]) / 2)
