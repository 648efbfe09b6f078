"""Ranks of the scores of a class's positives among all scores, counted without collecting the scores in one process.

ROC curves, precision-recall curves and the F1 of all thresholds follow from the scores of the positives (the samples
that have the class), and from how many of all scores are below and equal to each of them. A process sends the scores
of its positives to the others, counts its own scores, and the counts are added.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusttune.ranks import gather, highest_over_ranks, total_over_ranks


class PositiveScores(NamedTuple):
    """The different scores of the positives of C classes over all ranks, class by class in ascending order.

    Attributes:
        ends: Number of scores of the classes up to each one, shape (C + 1,), int64; the first is 0.
        scores: Scores, shape (P,).
        counts: Number of positives with each score, shape (P,), int64.
    """

    ends: NDArray[np.int64]
    scores: NDArray[np.floating]
    counts: NDArray[np.int64]

    def of_class(self, number: int) -> slice:
        """Return the places of the scores of a class."""
        return slice(int(self.ends[number]), int(self.ends[number + 1]))


class Counts(NamedTuple):
    """How the scores of all samples lie around those of the positives, over all ranks.

    Attributes:
        below: Number of samples with a score below each of `PositiveScores.scores`, shape (P,), int64.
        equal: Number of samples with that score, shape (P,), int64.
    """

    below: NDArray[np.int64]
    equal: NDArray[np.int64]


def positive_scores(classes: Tensor, scores: Tensor, count: int) -> PositiveScores:
    """Collect the scores of the positives of all ranks. Every rank must call this.

    Args:
        classes: Class of each positive of this rank, shape (Q,), integers.
        scores: Its score for that class, shape (Q,), floating point.
        count: Number of classes C.

    Example:
        >>> import torch
        >>> positive_scores(torch.tensor([1, 0, 1]), torch.tensor([0.5, 0.25, 0.5]), count=2).counts.tolist()
        [1, 2]
    """
    parts = gather((classes.numpy().astype(np.int32), scores.numpy()))
    parts = [part for part in parts if len(part[0])] or parts  # The dtype of an empty part means nothing.
    all_classes, all_scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((all_scores, all_classes))
    all_classes, all_scores = all_classes[order], all_scores[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (all_classes[1:] != all_classes[:-1]) | (all_scores[1:] != all_scores[:-1])
    starts = np.flatnonzero(is_new)
    ends = np.searchsorted(all_classes[starts], np.arange(count + 1))
    return PositiveScores(ends, all_scores[starts], np.diff(starts, append=len(order)))


def count_scores(positives: PositiveScores, blocks: Iterable[Tensor]) -> Counts:
    """Count the scores of all samples of all ranks around those of the positives. Every rank must call this.

    Args:
        positives: Scores of the positives.
        blocks: Scores of this rank's samples, shape (n, C) each.
    """
    totals = np.zeros((2, len(positives.scores)), np.int64)
    for block in blocks:
        columns = np.array(block.numpy().T, order="C")
        columns.sort(axis=1)
        for number, column in enumerate(columns):
            places = positives.of_class(number)
            wanted = positives.scores[places]
            totals[0, places] += np.searchsorted(column, wanted, "left")
            totals[1, places] += np.searchsorted(column, wanted, "right")
    below, up_to = total_over_ranks(torch.from_numpy(totals)).numpy()
    return Counts(below, up_to - below)


def next_below(limits: Tensor, blocks: Iterable[Tensor]) -> Tensor:
    """Return the highest score of each class below a limit, over the samples of all ranks. Every rank must call this.

    Args:
        limits: Limit of each class, shape (C,).
        blocks: Scores of this rank's samples, at least 0, shape (n, C) each.

    Returns:
        Scores, shape (C,), float64; 0 where no score is below the limit.
    """
    highest = torch.zeros(len(limits), dtype=torch.float64)
    for block in blocks:
        if len(block):
            highest = highest.maximum(block.masked_fill(block >= limits, 0).amax(0).double())
    return highest_over_ranks(highest)
