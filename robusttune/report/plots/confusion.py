"""Confusion matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robusttune.corruption.grammar import STANDARD_CONDITIONS
from robusttune.escaping import visible
from robusttune.report.compare import Comparison
from robusttune.report.conditions import MEAN
from robusttune.report.plots.style import LINE, SIZE, Plot, shown, width_of, wrapped
from robusttune.report.predictions import Predictions, read_predictions

MOST = 20  # most classes in the plot
NUMBERED = 12  # most classes for which the cells also show their value as a number
LINE_WIDTH = 2.6  # most inches per line of a class name
WIDEST = 12.0  # most inches for a row of panels


def confusion(comparison: Comparison) -> Plot | None:
    """Draw the confusion matrices of the best model's first run, one per condition.

    A row is a label, a column a prediction, and a row's values are fractions of the label's samples. Only complete
    samples and samples with one missing modality are shown.

    Returns:
        The plot, or None for multi-label data or without any of these conditions.
    """
    model = (comparison.best(MEAN) or comparison.models)[0]
    predictions = read_predictions(model.runs[0].predictions)
    conditions = [name for name in STANDARD_CONDITIONS if name in predictions.conditions]
    if predictions.multilabel or not conditions:
        return None
    counts = {name: confusion_of(predictions, name) for name in conditions}
    total = sum(counts.values(), np.zeros_like(counts[conditions[0]]))
    kept = most_confused(total)
    fractions = {name: _row_fractions(matrix)[np.ix_(kept, kept)] for name, matrix in counts.items()}
    names = [shown(predictions.class_names[index], f"#{index + 1}") for index in kept]
    selection = f", the {len(kept)} most confused of {len(total)} classes" if len(kept) < len(total) else ""
    caption = f"Confusion of {model.label} (run {model.runs[0].folder}){selection}: {_reading(bool(selection))}"
    figure = _draw(fractions, names, f"{shown(model.label, 'best model')}{selection}")
    return Plot("confusion", f"{caption}{_key(predictions, kept, names)}", figure)


def confusion_of(predictions: Predictions, condition: str) -> NDArray[np.int64]:
    """Return the confusion matrix under a condition.

    Samples whose label or prediction is not among the class names are left out.

    Args:
        predictions: Predictions of a run on data with a single label per sample.
        condition: One of the conditions in ``predictions``.

    Returns:
        Number of samples by label (row) and prediction (column), shape (C, C).
    """
    classes = len(predictions.class_names)
    predicted = predictions.prediction[predictions.conditions.index(condition)]
    known = (predictions.label >= 0) & (predicted >= 0)
    cell = predictions.label[known] * classes + predicted[known]
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def most_confused(counts: NDArray[np.int64]) -> list[int]:
    """Return the sorted indices of the `MOST` classes with the most errors, or of all classes if there are fewer.

    Both samples of the class that get another prediction and other samples that are predicted as the class count.

    Args:
        counts: Confusion matrix, shape (C, C).

    Example:
        >>> most_confused(np.array([[5, 1], [0, 4]]))
        [0, 1]
    """
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")
    return sorted(order[:MOST].tolist())


def _row_fractions(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide each row by its sum; a row without samples becomes 0."""
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))


def _reading(selected: bool) -> str:
    """Return the explanation of the plot for its caption; ``selected`` means that not all classes are drawn."""
    others = " Predictions of classes that are not shown are missing from the rows." if selected else ""
    return f"fraction of the samples of a class (row) with each prediction (column).{others}"


def _key(predictions: Predictions, kept: list[int], names: list[str]) -> str:
    """Return a sentence that explains the numbers that replace class names which no installed font can draw."""
    numbered = [
        f"{name} {predictions.class_names[index]}"
        for index, name in zip(kept, names, strict=True)
        if name == f"#{index + 1}"
    ]
    return f" No font of this machine has the names of: {'; '.join(numbered)}." if numbered else ""


def _draw(fractions: dict[str, NDArray[np.float64]], names: list[str], title: str) -> Figure:
    """Draw a panel per condition.

    The figure is as large as the class names need. The panels are in one row, or below each other if the row would be
    wider than `WIDEST`.
    """
    labels = [wrapped(name, LINE_WIDTH) for name in names]
    lines = max(label.count("\n") + 1 for label in labels)
    label_width = max(width_of(line) for label in labels for line in label.split("\n"))
    cell = max(0.24, lines * LINE, 2.2 / len(names))
    edge = cell * len(names) + 0.25
    in_one_row = len(fractions) * edge + label_width + 1.2 <= WIDEST
    columns, rows = (len(fractions), 1) if in_one_row else (1, len(fractions))
    size = columns * edge + label_width + 1.2, rows * (edge + label_width + 0.5) + 0.5
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten().tolist()
    for panel, (condition, matrix) in zip(axes, fractions.items(), strict=True):
        image = panel.pcolormesh(matrix, cmap="Blues", vmin=0, vmax=1)
        panel.set_title(visible(condition.replace("_", " ")))
        panel.set_xticks(np.arange(len(names)) + 0.5, labels, rotation=90)
        panel.set_yticks(np.arange(len(names)) + 0.5, labels)
        panel.tick_params(length=0)
        panel.set_xlabel("prediction")
        if panel is axes[0] or not in_one_row:
            panel.set_ylabel("label")
        if len(names) <= NUMBERED:
            _number(panel, matrix)
    axes[0].invert_yaxis()
    figure.suptitle(wrapped(title, figure.get_figwidth() - 0.5), fontsize="medium", fontweight="bold")
    figure.colorbar(image, ax=axes, aspect=30, shrink=0.6 / rows, pad=0.02, label="fraction of the label's samples")
    return figure


def _number(panel: Axes, matrix: NDArray[np.float64]) -> None:
    """Write the values into the cells of a panel."""
    for (row, column), fraction in np.ndenumerate(matrix):
        # These colours differ from INK, which an HTML page replaces with the colour of its text.
        colour = "#111111" if fraction < 0.6 else "#fefefe"
        centred: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SIZE - 2}
        panel.text(column + 0.5, row + 0.5, f"{fraction:.2f}", color=colour, **centred)
