"""Reliability diagrams: how often answers of a confidence are right (DeGroot and Fienberg 1983)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from robusttune.escaping import visible
from robusttune.evaluation.metrics import BINS
from robusttune.report.answers import Answers, read_answers
from robusttune.report.compare import Comparison
from robusttune.report.conditions import SIDES
from robusttune.report.plots.style import GREY, Look, Plot, legend

LEAST = 10  # answers in a bin whose share says something


class Bins(NamedTuple):
    """Answers by confidence, in bins of the same width.

    Attributes:
        size: (15,) how many answers.
        confidence: (15,) sum of their confidences.
        correct: (15,) how many are right.
    """

    size: NDArray[np.float64]
    confidence: NDArray[np.float64]
    correct: NDArray[np.float64]


def bins_of(answers: Answers, condition: str) -> Bins:
    """Confidence in the prediction, and whether it is right; in multi-label data the probability of every class of
    every sample, and whether the sample has it."""
    row = answers.conditions.index(condition)
    if answers.multilabel:
        confidence, right = answers.column("probabilities")[row].ravel(), answers.label.ravel()
    else:
        confidence, right = answers.column("confidence")[row], answers.correct[row]
    shares = torch.from_numpy(confidence)
    inner = torch.linspace(0, 1, BINS + 1, dtype=shares.dtype)[1:-1]  # as in the calibration error
    number = torch.bucketize(shares, inner, right=True).numpy()
    return Bins(*(np.bincount(number, weight, BINS).astype(float) for weight in (None, confidence, right)))


def _together(of_runs: list[Bins]) -> Bins:
    return Bins(*(np.sum(part, 0) for part in zip(*of_runs, strict=True)))


def calibration(comparison: Comparison, looks: list[Look]) -> Plot | None:
    """A panel a condition, with the share of answers in each bin below it; seeds are taken together."""
    there = [name for name in SIDES if name in comparison.conditions]
    found: list[dict[str, Bins]] = []
    for model in comparison.models:
        runs = [
            {name: bins_of(answers, name) for name in there if name in answers.conditions}
            for answers in (read_answers(run.answers) for run in model.runs)
        ]
        known = {name: [run[name] for run in runs if name in run] for name in there}
        found.append({name: _together(bins) for name, bins in known.items() if bins})
    there = [name for name in there if any(name in of_model for of_model in found)]
    if not there:
        return None
    multilabel = comparison.models[0].tests[0].multilabel
    figure = Figure(figsize=(max(3.1 * len(there), 4.5), 4), layout="constrained")
    grid = figure.subplots(
        2, len(there), squeeze=False, sharex=True, sharey="row", gridspec_kw={"height_ratios": [4, 1]}
    )
    edges = np.linspace(0, 1, BINS + 1)
    for name, (upper, lower) in zip(there, grid.T, strict=True):
        upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
        upper.set_title(visible(name.replace("_", " ")))
        for look, of_model in zip(looks, found, strict=True):
            if name not in of_model:
                continue
            bins = of_model[name]
            told = bins.size >= LEAST
            at, share = (part[told] / bins.size[told] for part in (bins.confidence, bins.correct))
            upper.plot(at, share, color=look.colour, marker=look.marker, markersize=4, linewidth=1.2)
            lower.stairs(bins.size / bins.size.sum(), edges, color=look.colour, linewidth=1)
        for panel in (upper, lower):
            panel.grid(color=GREY, alpha=0.25, linewidth=0.6)
        upper.set(xlim=(0, 1.02), ylim=(0, 1.02))
        lower.set_xlabel("probability of a class" if multilabel else "confidence")
    grid[1, 0].set_ylim(bottom=0)  # of all of the row, and no sooner: it ends the search for the top
    grid[0, 0].set_ylabel("share that has the class" if multilabel else "accuracy")
    grid[1, 0].set_ylabel("share of\nclasses" if multilabel else "share of\nanswers")
    line = Line2D([], [], color=GREY, linestyle="--", label="calibrated")
    marks = [Line2D([], [], color=k.colour, marker=k.marker, markersize=5, linewidth=1.2, label=k.label) for k in looks]
    legend(figure, [*marks, line])
    caption = f"Calibration in {BINS} bins; those of fewer than {LEAST} answers are left out above."
    return Plot("calibration", caption, figure)
