"""Ranking metrics: area under the ROC curve and average precision."""

from __future__ import annotations

import numpy as np

from robusttune.score_counts import Counts, PositiveScores


def ranking_metrics(positives: PositiveScores, counts: Counts, samples: int) -> dict[str, float]:
    """Compute the macro averages of the area under the ROC curve and of average precision.

    Each class is compared with all others. Classes that all samples have, or none, are left out, because neither
    metric is defined for them; torchmetrics' own averages count some of them as 0. Both are exact for any number of
    samples, and equal scores are treated as ties.

    Args:
        positives: Scores of the samples that have a class, over all ranks.
        counts: Positions of these scores among those of all samples.
        samples: Number of samples of all ranks.

    Returns:
        Values of ``auroc`` and ``average_precision`` in [0, 1], or NaN if no class is left.

    Example:
        >>> import torch
        >>> from robusttune.score_counts import count_scores, positive_scores
        >>> positives = positive_scores(torch.tensor([0, 0]), torch.tensor([0.9, 0.4]), count=1)
        >>> counts = count_scores(positives, [torch.tensor([[0.9], [0.2], [0.4]])])
        >>> ranking_metrics(positives, counts, samples=3)
        {'auroc': 1.0, 'average_precision': 1.0}
    """
    areas = []
    for number in range(len(positives.ends) - 1):
        places = positives.of_class(number)
        new_hits, below, equal = positives.counts[places], counts.below[places], counts.equal[places]
        with_class = int(new_hits.sum())
        if 0 < with_class < samples:
            hits = new_hits[::-1].cumsum()[::-1]  # positives with this score or a higher one
            others_below = below - (with_class - hits)
            wins = (new_hits * (others_below + (equal - new_hits) / 2)).sum()
            precision = (new_hits * (hits / (samples - below))).sum() / with_class
            areas.append((wins / (with_class * (samples - with_class)), precision))
    auroc, precision = np.mean(areas, axis=0) if areas else (np.nan, np.nan)
    return {"auroc": float(auroc), "average_precision": float(precision)}
