"""Which classes are taken for which."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robusttune.escaping import visible
from robusttune.report.answers import Answers, read_answers
from robusttune.report.compare import Comparison
from robusttune.report.conditions import MEAN, SIDES
from robusttune.report.plots.style import LINE, SIZE, Plot, shown, width_of, wrapped

MOST = 20  # classes that are drawn
NUMBERED = 12  # up to so many classes, cells say their share
LINE_WIDTH = 2.6  # inches of a class's name in a line
WIDEST = 12.0  # inches


def confusion(comparison: Comparison) -> Plot | None:
    """Of the best model's first run; a row is a label, and its cells the shares of the answers."""
    model = (comparison.best(MEAN) or comparison.models)[0]
    answers = read_answers(model.runs[0].answers)
    there = [name for name in SIDES if name in answers.conditions]
    if answers.multilabel or not there:
        return None
    counts = {name: confusion_of(answers, name) for name in there}
    kept = most_confused(sum(counts.values(), np.zeros_like(counts[there[0]])))
    shares = {name: _shares(matrix)[np.ix_(kept, kept)] for name, matrix in counts.items()}
    names = [shown(answers.class_names[number], f"#{number + 1}") for number in kept]
    some = (
        f", the {len(kept)} most confused of {len(counts[there[0]])} classes"
        if len(kept) < len(counts[there[0]])
        else ""
    )
    caption = f"Confusion of {model.label} (run {model.runs[0].folder}){some}: {_reading(bool(some))}"
    figure = _draw(shares, names, f"{shown(model.label, 'best model')}{some}")
    return Plot("confusion", f"{caption}{_key(answers, kept, names)}", figure)


def confusion_of(answers: Answers, condition: str) -> NDArray[np.int64]:
    """(C, C) samples by label and answer."""
    classes = len(answers.class_names)
    answer = answers.prediction[answers.conditions.index(condition)]
    known = (answers.label >= 0) & (answer >= 0)
    return np.bincount(answers.label[known] * classes + answer[known], minlength=classes**2).reshape(classes, classes)


def most_confused(counts: NDArray[np.int64]) -> list[int]:
    """The classes that are most often taken for others, or others for them, in their own order; all if they are few."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")
    return sorted(order[:MOST].tolist())


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each row; 0 in a row without samples."""
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))


def _reading(some: bool) -> str:
    others = " Answers of classes that are not shown are missing from the rows." if some else ""
    return f"what share of the samples of a class (row) gets which answer (column).{others}"


def _key(answers: Answers, kept: list[int], names: list[str]) -> str:
    """What numbers stand for where names cannot be drawn."""
    numbered = [
        f"{name} {answers.class_names[number]}"
        for number, name in zip(kept, names, strict=True)
        if name == f"#{number + 1}"
    ]
    return f" No font of this machine has the names of: {'; '.join(numbered)}." if numbered else ""


def _draw(shares: dict[str, NDArray[np.float64]], names: list[str], title: str) -> Figure:
    """As large as the names need; panels side by side, or below each other where that would be too wide."""
    labels = [wrapped(name, LINE_WIDTH) for name in names]
    lines = max(label.count("\n") + 1 for label in labels)
    room = max(width_of(line) for label in labels for line in label.split("\n"))
    cell = max(0.24, lines * LINE, 2.2 / len(names))
    side = cell * len(names) + 0.25
    beside = len(shares) * side + room + 1.2 <= WIDEST
    columns, rows = (len(shares), 1) if beside else (1, len(shares))
    figure = Figure(figsize=(columns * side + room + 1.2, rows * (side + room + 0.5) + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten().tolist()
    for panel, (condition, matrix) in zip(axes, shares.items(), strict=True):
        image = panel.pcolormesh(matrix, cmap="Blues", vmin=0, vmax=1)
        panel.set_title(visible(condition.replace("_", " ")))
        panel.set_xticks(np.arange(len(names)) + 0.5, labels, rotation=90)
        panel.set_yticks(np.arange(len(names)) + 0.5, labels)
        panel.tick_params(length=0)
        panel.set_xlabel("answer")
        if panel is axes[0] or not beside:
            panel.set_ylabel("label")
        if len(names) <= NUMBERED:
            _number(panel, matrix)
    axes[0].invert_yaxis()
    figure.suptitle(wrapped(title, figure.get_figwidth() - 0.5), fontsize="medium", fontweight="bold")
    figure.colorbar(image, ax=axes, aspect=30, shrink=0.6 / rows, pad=0.02, label="share of the label's samples")
    return figure


def _number(panel: Axes, matrix: NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(matrix):
        colour = "#111111" if share < 0.6 else "#fefefe"  # none that a page changes
        where: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SIZE - 2}
        panel.text(column + 0.5, row + 0.5, f"{share:.2f}", color=colour, **where)
