"""Curves of a metric over missing rates."""

from __future__ import annotations

from itertools import product

from robusttune.corruption.grammar import COMPLETE, MISSING_TYPES, MissingType
from robusttune.protocols.curves import BANDS, Panel, draw_panels
from robusttune.protocols.ledger import plain
from robusttune.protocols.measured import Measured
from robusttune.protocols.summaries.missing_grid import Grid, Training, diagonal, percentages
from robusttune.report.plots import Drawn
from robusttune.report.sentences import heading

WHAT = {"image": "image missing", "text": "text missing", "both": "image or text missing"}


def curves_by_test_rate(grid: Grid, dataset: str, metric: str) -> dict[str, Drawn]:
    """Draw the metric over the missing rate in tests: a plot for each missing rate in training.

    A plot has a row of panels for each missing type in training, and a panel for each missing type in tests.

    Args:
        grid: Values of one data set.
        dataset: Name of the data set.
        metric: Name of the metric.

    Returns:
        Plots by name; rates without tests at several rates have none.
    """
    plots: dict[str, Drawn] = {}
    trainings = [*dict.fromkeys(training for _, training, _ in grid)]
    for percent in dict.fromkeys(training.percent for training in trainings):
        panels = []
        for training, kind in product([t for t in trainings if t.percent == percent], MISSING_TYPES):
            lines = _lines(grid, training, kind)
            if any(len(line) > 1 for line in lines.values()):
                title = f"trained on {training.name};\ntests: {WHAT[kind]}"
                panels.append(Panel(title, f"{heading(metric)} (%)", lines))
        trained = f"{percent:g} % missing in training" if percent else "complete training"
        caption = f"{_subject(dataset, metric)} over the missing rate in tests, with {trained}. {BANDS}"
        name = f"{_name(dataset)}_{percent:g}".replace(".", "_")
        plot = draw_panels(name, caption, panels, "missing in tests (%)", columns=len(MISSING_TYPES))
        plots |= {name: plot} if plot is not None else {}
    return plots


def alike_curves(grid: Grid, dataset: str, metric: str) -> dict[str, Drawn]:
    """Draw the metric over the missing rate, the same in training and tests, with a panel for each missing type.

    Args:
        grid: Values of one data set.
        dataset: Name of the data set.
        metric: Name of the metric.

    Returns:
        The plot by its name; none if there is one rate only.
    """
    lines: dict[MissingType, dict[str, dict[float, Measured]]] = {}
    for (method, training, _), measured in diagonal(grid).items():
        if training.kind is not None:
            lines.setdefault(training.kind, {}).setdefault(method, {})[training.percent] = measured
    for method, line in (entry for of_kind in lines.values() for entry in of_kind.items()):
        complete = grid.get((method, Training(None, 0.0), COMPLETE))
        if complete is not None:
            line[0.0] = complete
    panels = [Panel(WHAT[kind], f"{heading(metric)} (%)", own) for kind, own in lines.items()]
    name, what = f"{_name(dataset)}_alike", "missing in training and tests"
    plot = draw_panels(name, f"{_subject(dataset, metric)} over the rate {what}. {BANDS}", panels, f"{what} (%)")
    return {name: plot} if plot is not None else {}


def _lines(grid: Grid, training: Training, kind: MissingType) -> dict[str, dict[float, Measured]]:
    """Return the values by method and percentage of the test samples that lack a modality."""
    lines: dict[str, dict[float, Measured]] = {}
    for (method, trained, test), measured in grid.items():
        if trained == training and kind in percentages(test):
            lines.setdefault(method, {})[percentages(test)[kind]] = measured
    return lines


def _name(dataset: str) -> str:
    return f"missing_rates_{plain(dataset)}" if dataset else "missing_rates"


def _subject(dataset: str, metric: str) -> str:
    name = heading(metric) or "metric"
    return f"{name[0].upper()}{name[1:]}{f' on {dataset}' if dataset else ''}"
