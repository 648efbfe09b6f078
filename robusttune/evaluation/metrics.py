"""Metrics of the predictions under one condition, over the samples of all ranks.

Each rank adds up its own samples, block by block, and the sums are added over the ranks. So no process holds the logits
of all samples. torchmetrics computes the same values from all logits at once, and the tests compare with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.evaluation.calibration import BINS, binned, calibration_error
from robusttune.evaluation.classes import Classes, Shown
from robusttune.evaluation.outcomes import Outcomes, chances, joined, outcomes_of
from robusttune.evaluation.ranking import ranking_metrics
from robusttune.evaluation.sums import Sums, metrics_of, sums_of
from robusttune.ranks import total_over_ranks
from robusttune.score_counts import count_scores, positive_scores

Blocks = Callable[[], Iterator[Shown]]  # passes over this rank's samples: at least one block, which may be empty


class Measured(NamedTuple):
    """The metrics of a condition.

    Attributes:
        metrics: Values by name, over all samples of all ranks; NaN for a metric that is not defined. With base and new
            classes they are those of base-to-new generalisation (CoCoOp, arXiv 2203.05557): ``base_accuracy`` on
            samples of base classes, with base classes as the only candidates, ``new_accuracy`` in the same way, their
            ``harmonic_mean``, and ``unknown_accuracy`` on all samples among all classes.
        outcomes: Outcomes of this rank's samples.
        sums: Sums over the samples of all ranks.
    """

    metrics: dict[str, float]
    outcomes: Outcomes
    sums: Sums


def measure(blocks: Blocks, classes: Classes) -> Measured:
    """Compute the metrics of a condition over the samples of all ranks. Every rank must call this.

    Args:
        blocks: Function that starts a pass over the samples of this rank, in the same order in each pass.
        classes: Classes of the evaluation.

    Example:
        >>> logits = torch.eye(3)
        >>> block = Shown(torch.tensor([0, 1, 1]), logits, logits, torch.zeros(()))
        >>> classes = Classes(["a", "b", "c"], torch.ones(3, dtype=torch.bool), multilabel=False)
        >>> round(measure(lambda: iter([block]), classes).metrics["f1_weighted"], 3)
        0.778
    """
    parts, labels, positives = [], [], []
    bins = torch.zeros(BINS, 4, dtype=torch.int64)
    for shown in blocks():
        part = outcomes_of(shown, classes)
        parts.append(part)
        labels.append(shown.label)
        if classes.multilabel:
            scores = chances(shown.unknown, multilabel=True)
            rows, of_rows = shown.label.nonzero().T
            positives.append((of_rows, scores[rows, of_rows]))
            bins += binned(scores.flatten(), shown.label.flatten().bool())
        else:
            bins += binned(part.details["confidence"], part.hits)
            if not classes.mixed:
                scores = chances(shown.unknown, multilabel=False)
                positives.append((shown.label, scores.gather(1, shown.label.unsqueeze(1)).squeeze(1)))
    outcomes = joined(parts)
    sums = sums_of(outcomes, torch.cat(labels), classes)
    found = {name: float(value) for name, value in metrics_of(sums, classes).items()}
    found["calibration_error"] = calibration_error(total_over_ranks(bins))
    if not classes.mixed:
        found |= _ranking(positives, blocks, classes, int(sums.samples))
    return Measured(found, outcomes, sums)


def _ranking(
    positives: list[tuple[Tensor, Tensor]], blocks: Blocks, classes: Classes, samples: int
) -> dict[str, float]:
    """Compute the ranking metrics in a second pass, from the class and the probability of each positive."""
    of_classes, scores = (torch.cat(column) for column in zip(*positives, strict=True))
    known = positive_scores(of_classes, scores, len(classes.names))
    counts = count_scores(known, (chances(shown.unknown, classes.multilabel) for shown in blocks()))
    return ranking_metrics(known, counts, samples)
