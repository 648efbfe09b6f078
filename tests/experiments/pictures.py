"""The pictures of the studies, drawn from their results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from experiments import robustness
from experiments.emoji import STYLES
from experiments.records import Results
from experiments.training import CONDITIONS
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robusttune.report.plots.style import GREY, curve_styles, legend, panels, style

MISSING = {"image": "image is missing", "text": "text is missing", "both": "either image or text is missing"}


def missing_rates(path: Path, source: str, results: Results, test_set: str) -> None:
    """Draw accuracy against the missing rate, one line for each model.

    Args:
        path: PNG file to write.
        source: Description of the results, which the file keeps, see `tables.source_of`.
        results: Results of `robustness`.
        test_set: Test set of the results.
    """
    curves = robustness.curves(results, test_set)
    with _drawing(path, source, list(curves), len(MISSING), len(MISSING), (3.4, 2.9)) as (axes, models):
        for axis, (kind, title) in zip(axes, MISSING.items(), strict=True):
            axis.set_title(title)
            axis.set_xlabel("missing rate (%)")
            axis.grid(color=GREY, alpha=0.25, linewidth=0.6)
            for model, of_kind in zip(models, curves.values(), strict=True):
                rates = of_kind[kind]
                axis.plot(list(rates), list(rates.values()), **model, markersize=4.5, linewidth=1.3)


def specialists(path: Path, source: str, results: Results) -> None:
    """Draw accuracy with its interval, one panel for each pair of training and test style; see `missing_rates`."""
    rows = [row for row in results.summary if row["kind"] == "accuracy"]
    names = list(dict.fromkeys(row["model"] for row in rows))
    pairs = list(product(STYLES, STYLES))
    with _drawing(path, source, names, 2, len(pairs), (4.2, 2.3)) as (axes, models):
        for axis, (trained, tested) in zip(axes, pairs, strict=True):
            axis.set_title(f"trained on {trained}, tested on {tested}", loc="left")
            axis.set_xticks(range(len(CONDITIONS)), [name.replace("_", " ") for name in CONDITIONS])
            axis.grid(axis="y", color=GREY, alpha=0.25)
        for row in rows:
            trained, tested, condition = row["cell"]
            number = names.index(row["model"])
            place = CONDITIONS.index(condition) + (number - (len(names) - 1) / 2) * 0.8 / len(names)
            axis = axes[pairs.index((trained, tested))]
            axis.vlines(place, row["low"], row["high"], color=models[number]["color"], alpha=0.5)
            axis.plot(place, row["mean"], **models[number], markersize=5)


@contextmanager
def _drawing(
    path: Path, source: str, names: list[str], columns: int, count: int, size: tuple[float, float]
) -> Iterator[tuple[list[Axes], list[dict[str, Any]]]]:
    """Give panels, and the colour and marker of each model; then add axis label and legend, and write the file."""
    with style(names):
        models: list[dict[str, Any]] = [{"color": look.colour, "marker": look.marker} for look in curve_styles(names)]
        figure, axes = panels(columns, count, *size)
        yield axes, models
        axes[0].set_ylabel("accuracy")
        legend(figure, [Line2D([], [], **m, markersize=5, label=name) for m, name in zip(models, names, strict=True)])
        figure.savefig(path, dpi=150, facecolor="white", metadata={"Source": source})
