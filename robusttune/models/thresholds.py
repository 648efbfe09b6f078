"""Thresholds of multi-label predictions, fitted to maximise F1, for each pattern of present modalities."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from robusttune.models.temperatures import Blocks
from robusttune.ranks import total_over_ranks
from robusttune.score_counts import count_scores, next_below, positive_scores
from robusttune.types import PATTERNS

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

    def fit(self, blocks: Blocks) -> Tensor:
        """Fit the thresholds of each pattern, see `fit_thresholds`. Every rank must call this.

        Args:
            blocks: Function that starts a pass over this rank's samples that can show a pattern: calibrated logits and
                labels, such as `blocks_of`.

        Returns:
            Fitted thresholds in the order of `PATTERNS`, shape (3, C), for `keep`. A pattern without samples keeps its
            thresholds.
        """
        found = self.values[: len(PATTERNS)].cpu().clone()
        for number in range(len(PATTERNS)):
            fitted = fit_thresholds(
                lambda number=number: ((logits.sigmoid(), label) for logits, label in blocks(number))  # type: ignore[misc]
            )
            if fitted is not None:
                found[number] = fitted
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


def fit_thresholds(blocks: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> Tensor | None:
    """Fit thresholds: one for each class that has enough samples, and a common one for the others.

    The threshold of a class maximises its F1, and so all together maximise the macro average. The common one maximises
    the micro F1 of all classes. A threshold that is fitted to few positives would follow their noise (SCutFBR,
    Yang 2001). Every rank must call this; the samples of all ranks count.

    Args:
        blocks: Function that starts a pass over the samples of this rank: class probabilities and labels 0/1, shape
            (n, C) each. There is at least one block.

    Returns:
        Thresholds, shape (C,), in [0.01, 0.99]; None without samples.

    Example:
        >>> probability = torch.tensor([[0.1], [0.2], [0.3], [0.4]])
        >>> fit_thresholds(lambda: [(probability, torch.tensor([[0], [0], [1], [1]]))])
        tensor([0.2500])
    """
    sizes = torch.stack(
        [torch.stack([label.long().sum(0), torch.full(label.shape[1:], len(label))]) for _, label in blocks()]
    )
    positives, samples = total_over_ranks(sizes.sum(0))
    if not samples[0]:
        return None
    enough = (positives >= LEAST_POSITIVES) & (samples - positives >= LEAST_POSITIVES)
    common = best_thresholds(lambda: ((p.reshape(-1, 1), label.reshape(-1, 1)) for p, label in blocks()))
    return torch.where(enough, best_thresholds(blocks), common).float().clamp(*LIMITS)


def best_thresholds(blocks: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> Tensor:
    """Return the thresholds with the highest F1, in the middle between two probabilities; 0.5 without positives.

    The highest F1 belongs to a threshold just below the probability of a positive. Every rank must call this.

    Args:
        blocks: Function that starts a pass over the samples of this rank, see `fit_thresholds`.

    Returns:
        Thresholds, shape (C,), float64.
    """
    columns, scores = [], []
    for probability, label in blocks():
        rows, classes = label.nonzero().T
        columns.append(classes)
        scores.append(probability[rows, classes])
    count = probability.shape[1]
    positives = positive_scores(torch.cat(columns), torch.cat(scores), count)
    counts = count_scores(positives, (probability for probability, _ in blocks()))
    samples = int(total_over_ranks(torch.tensor(sum(len(probability) for probability, _ in blocks()))))
    best = torch.full((count,), torch.nan, dtype=torch.float64)
    for number in range(count):
        places = positives.of_class(number)
        hits = positives.counts[places][::-1].cumsum()  # from the highest score down
        if len(hits):
            f1 = 2 * hits / (samples - counts.below[places][::-1] + hits[-1])
            best[number] = float(positives.scores[places][::-1][f1.argmax()])
    below = next_below(best, (probability for probability, _ in blocks()))
    return ((best + below) / 2).nan_to_num(DEFAULT)
