"""Reliability diagrams: accuracy of the predictions by their confidence (DeGroot and Fienberg 1983)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from robusttune.corruption.grammar import STANDARD_CONDITIONS
from robusttune.escaping import visible
from robusttune.evaluation.calibration import BINS, confidence_bins
from robusttune.report.compare import Comparison
from robusttune.report.plots.style import GREY, CurveStyle, Plot, legend
from robusttune.report.predictions import Predictions, read_predictions

LEAST = 10  # least number of predictions in a bin; with fewer the accuracy is too uncertain to be drawn


class Bins(NamedTuple):
    """Predictions in bins of equal width by confidence.

    Attributes:
        size: Number of predictions per bin, shape (15,).
        confidence: Sum of their confidences per bin, shape (15,).
        correct: Number of correct predictions per bin, shape (15,).

    Example:
        >>> bins = Bins(size=np.full(15, 10.0), confidence=np.full(15, 5.0), correct=np.full(15, 4.0))
        >>> float((bins.correct / bins.size)[0])  # accuracy in the first bin
        0.4
    """

    size: NDArray[np.float64]
    confidence: NDArray[np.float64]
    correct: NDArray[np.float64]


def bins_of(predictions: Predictions, condition: str) -> Bins:
    """Sort the predictions under a condition into bins by their confidence.

    In multi-label data every class of every sample counts as a prediction: its confidence is the probability of the
    class, and it is correct if the sample has the class.

    Args:
        predictions: Predictions of a run.
        condition: One of the conditions in ``predictions``.
    """
    row = predictions.conditions.index(condition)
    if predictions.multilabel:
        confidence, correct = predictions.column("probabilities")[row].ravel(), predictions.label.ravel()
    else:
        confidence, correct = predictions.column("confidence")[row], predictions.correct[row]
    bin_index = confidence_bins(torch.from_numpy(confidence)).numpy()
    return Bins(*(np.bincount(bin_index, weight, BINS).astype(float) for weight in (None, confidence, correct)))


def _summed(bins_of_runs: list[Bins]) -> Bins:
    return Bins(*(np.sum(part, 0) for part in zip(*bins_of_runs, strict=True)))


def calibration(comparison: Comparison, styles: list[CurveStyle]) -> Plot | None:
    """Draw a reliability diagram per condition, with the distribution of the confidence below it.

    Only complete samples and samples with one missing modality are shown. Predictions of all seeds are pooled.

    Args:
        comparison: Comparison of the models.
        styles: Style of each model.

    Returns:
        The plot, or None if no run was tested under any of these conditions.
    """
    conditions = [name for name in STANDARD_CONDITIONS if name in comparison.conditions]
    bins_of_models: list[dict[str, Bins]] = []
    for model in comparison.models:
        runs = [
            {name: bins_of(predictions, name) for name in conditions if name in predictions.conditions}
            for predictions in (read_predictions(run.predictions) for run in model.runs)
        ]
        known = {name: [run[name] for run in runs if name in run] for name in conditions}
        bins_of_models.append({name: _summed(bins) for name, bins in known.items() if bins})
    conditions = [name for name in conditions if any(name in by_condition for by_condition in bins_of_models)]
    if not conditions:
        return None
    multilabel = comparison.models[0].tests[0].multilabel
    figure = Figure(figsize=(max(3.1 * len(conditions), 4.5), 4), layout="constrained")
    grid = figure.subplots(
        2, len(conditions), squeeze=False, sharex=True, sharey="row", gridspec_kw={"height_ratios": [4, 1]}
    )
    edges = np.linspace(0, 1, BINS + 1)
    for name, (upper, lower) in zip(conditions, grid.T, strict=True):
        upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
        upper.set_title(visible(name.replace("_", " ")))
        for style, by_condition in zip(styles, bins_of_models, strict=True):
            if name not in by_condition:
                continue
            bins = by_condition[name]
            large = bins.size >= LEAST
            mean_confidence, accuracy = (part[large] / bins.size[large] for part in (bins.confidence, bins.correct))
            upper.plot(mean_confidence, accuracy, color=style.colour, marker=style.marker, markersize=4, linewidth=1.2)
            lower.stairs(bins.size / bins.size.sum(), edges, color=style.colour, linewidth=1)
        for panel in (upper, lower):
            panel.grid(color=GREY, alpha=0.25, linewidth=0.6)
        upper.set(xlim=(0, 1.02), ylim=(0, 1.02))
        lower.set_xlabel("probability of a class" if multilabel else "confidence")
    # The lower panels share this limit. It must be set last, because setting it stops the automatic upper limit.
    grid[1, 0].set_ylim(bottom=0)
    grid[0, 0].set_ylabel("fraction with the class" if multilabel else "accuracy")
    grid[1, 0].set_ylabel("fraction of\nclasses" if multilabel else "fraction of\npredictions")
    line = Line2D([], [], color=GREY, linestyle="--", label="calibrated")
    marks = [
        Line2D([], [], color=k.colour, marker=k.marker, markersize=5, linewidth=1.2, label=k.label) for k in styles
    ]
    legend(figure, [*marks, line])
    caption = f"Calibration in {BINS} bins; bins with fewer than {LEAST} predictions are left out of the upper panels."
    return Plot("calibration", caption, figure)
