"""Missing rates: a metric by what was missing in training and by what is missing in tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

from robusttune.corruption.grammar import COMPLETE, MISSING_TYPES, MissingType
from robusttune.protocols.curves import BANDS, Panel, draw_panels
from robusttune.protocols.kinds import AXES
from robusttune.protocols.ledger import plain
from robusttune.protocols.measured import Measured, average, best_of, measure, row_cells
from robusttune.protocols.outcomes import Outcome
from robusttune.protocols.summaries.summary import (
    UNITS,
    Chosen,
    Key,
    Summary,
    best_sentence,
    labels_of,
    lookup,
    method_rows,
    metric_of,
    relabel,
    titled,
    where,
)
from robusttune.report.conditions import MEAN, in_order, parsed
from robusttune.report.document import Section
from robusttune.report.sentences import heading
from robusttune.report.tables import Rows, Table

MEANING = (
    "A rate of 70 % means that 70 % of all samples lack the modality; for both, half of these lack the image and half "
    "the text, and no sample lacks both."
)


MOST = 6  # most kinds of training with curves of their own; more would fill pages
WHAT = {"image": "image missing", "text": "text missing", "both": "image or text missing"}
ALIKE = " in training and tests"


class Training(NamedTuple):
    """What is missing in training.

    Attributes:
        kind: Missing type, one of `MISSING_TYPES`; None for complete samples.
        percent: Missing rate in percent; 0 for complete samples.
    """

    kind: MissingType | None
    percent: float

    @property
    def name(self) -> str:
        """Return the name in tables.

        Example:
            >>> Training("both", 70.0).name
            'both, 70 % missing'
        """
        return "complete samples" if self.kind is None else f"{self.kind}, {self.percent:g} % missing"


Grid = dict[tuple[str, Training, str], Measured]  # method, training, test condition


def training_of(labels: Mapping[str, str]) -> Training:
    """Return what is missing in training from the labels of the axes ``type`` and ``rate``.

    Args:
        labels: Labels of a run. A rate is written in percent (``70``, ``70 %``), or as a fraction with a point.

    Example:
        >>> training_of({"type": "image", "rate": "70"}), training_of({"type": "image", "rate": "0.7"})
        (Training(kind='image', percent=70.0), Training(kind='image', percent=70.0))
    """
    kind = next((name for name in MISSING_TYPES if name == labels.get("type", "").lower()), None)
    found = re.search(r"\d+(\.\d+)?", labels.get("rate", ""))
    percent = 0.0 if found is None else float(found[0]) * (100 if found[1] and float(found[0]) <= 1 else 1)
    return Training(kind, percent) if kind is not None and percent > 0 else Training(None, 0.0)


def summarise(outcomes: list[Outcome], chosen: Chosen) -> Summary:
    """Return the tables and the curves of each data set.

    Args:
        outcomes: Outcomes of all planned tests. What is missing in training is in the labels ``type`` and ``rate``;
            what is missing in tests is in the conditions.
        chosen: Metric of each data set that replaces the main metric of its tests.
    """
    outcomes = relabel(outcomes, AXES["missing_rates"])
    parts = []
    for dataset in labels_of(outcomes, "dataset"):
        own = where(outcomes, dataset=dataset)
        parts.append(_of_dataset(own, dataset, metric_of(own, dataset, chosen)))
    cells = {key: measured for part in parts for key, measured in part.cells.items()}
    sections = [section for part in parts for section in part.sections]
    return Summary(sections, cells, " ".join(part.finding for part in parts))


def _of_dataset(outcomes: list[Outcome], dataset: str, metric: str) -> Summary:
    """Return the tables and the curves of one data set."""
    methods, grid = labels_of(outcomes, "method"), _grid(outcomes, metric)
    cells = {
        Key(method, dataset, _condition(training, test), metric): measured
        for (method, training, test), measured in grid.items()
    }
    alike = {
        Key(method, dataset, condition, metric): measured for (method, condition), measured in _alike(grid).items()
    }
    sections = [_main_section(cells, grid, methods, dataset, metric)]
    if alike:
        sections.append(_alike_section(alike, grid, methods, dataset, metric))
    shown = alike or cells
    last = [key.condition for key in shown][-1]
    by_method = {method: lookup(shown, dataset, metric)(method, last) for method in methods}
    quantity = f"{heading(metric)}{f' on {dataset}' if dataset else ''} ({last})"
    return Summary(sections, cells | alike, best_sentence(by_method, quantity, metric))


def _grid(outcomes: list[Outcome], metric: str) -> Grid:
    """Return the values by method, training and test condition. Conditions with noise are left out."""
    tests = in_order(name for o in outcomes for name in o.values if name != MEAN and _percentages(name)) or [COMPLETE]
    grid: Grid = {}
    for training in dict.fromkeys(training_of(outcome.labels) for outcome in outcomes):
        trained = [outcome for outcome in outcomes if training_of(outcome.labels) == training]
        for method in labels_of(trained, "method"):
            grid |= {(method, training, test): measure(where(trained, method=method), metric, test) for test in tests}
    return grid


def _diagonal(grid: Grid) -> Grid:
    """Return the values for the same missing type and rate in training and tests."""
    return {
        (method, training, test): measured
        for (method, training, test), measured in grid.items()
        if training.kind is not None and _percentages(test) == {training.kind: training.percent}
    }


def _alike(grid: Grid) -> dict[tuple[str, str], Measured]:
    """Return the values for the same missing rates in training and tests, and their average over missing types.

    Returns:
        Values by method and condition. The average of a rate needs all missing types of this rate.
    """
    found: dict[tuple[str, str], Measured] = {}
    by_rate: dict[tuple[str, float], dict[str, Measured]] = {}
    for (method, training, _), measured in _diagonal(grid).items():
        found[method, f"{training.name}{ALIKE}"] = measured
        by_rate.setdefault((method, training.percent), {})[str(training.kind)] = measured
    for (method, percent), by_type in by_rate.items():
        if len(by_type) == len(MISSING_TYPES):
            condition = f"average of image, text and both, {percent:g} % missing{ALIKE}"
            found[method, condition] = average([*by_type.values()], "missing type")
    return found


def _main_section(cells: dict[Key, Measured], grid: Grid, methods: list[str], dataset: str, metric: str) -> Section:
    """Return the table with a group per training, a row per test condition and a column per method, and the curves."""
    tests = in_order(test for _, _, test in grid)
    trainings = [*dict.fromkeys(training for _, training, _ in grid)]
    value = lookup(cells, dataset, metric)
    groups = []
    for training in trainings:
        rows = {test: [value(method, _condition(training, test)) for method in methods] for test in tests}
        body = [(test, row_cells(row, [best_of(row, metric)] * len(row))) for test, row in rows.items()]
        groups.append(Rows(f"trained on {training.name}", body))
    title = _title(dataset, metric, "tests by missing rate")
    table = Table(title, methods, groups, f"{UNITS} {MEANING}")
    name = _plot_name(dataset)
    panels = []
    for training, kind in product(trainings if len(trainings) <= MOST else (), MISSING_TYPES):
        lines = _lines(grid, training, kind)
        if any(len(line) > 1 for line in lines.values()):
            panels.append(Panel(f"trained on {training.name};\ntests: {WHAT[kind]}", f"{heading(metric)} (%)", lines))
    caption = f"{title}, for each kind of training. {BANDS}"
    plot = draw_panels(name, caption, panels, "missing in tests (%)", columns=len(MISSING_TYPES)) if panels else None
    return Section(title, table, {} if plot is None else {name: plot})


def _alike_section(alike: dict[Key, Measured], grid: Grid, methods: list[str], dataset: str, metric: str) -> Section:
    """Return the table and the curves for the same missing rates in training and tests."""
    conditions = [*dict.fromkeys(key.condition for key in alike)]
    rows = method_rows("", methods, conditions, lookup(alike, dataset, metric), metric)
    headers = [condition.removesuffix(ALIKE) for condition in conditions]
    table = Table(_title(dataset, metric, f"the same missing rates{ALIKE}"), headers, [rows], UNITS)
    lines: dict[MissingType, dict[str, dict[float, Measured]]] = {}
    for (method, training, _), measured in _diagonal(grid).items():
        if training.kind is not None:
            lines.setdefault(training.kind, {}).setdefault(method, {})[training.percent] = measured
    panels = [Panel(WHAT[kind], f"{heading(metric)} (%)", own) for kind, own in lines.items()]
    name = f"{_plot_name(dataset)}_alike"
    plot = draw_panels(name, f"{table.title}. {BANDS}", panels, f"missing{ALIKE} (%)", columns=3) if panels else None
    return Section(table.title, table, {} if plot is None else {name: plot})


def _plot_name(dataset: str) -> str:
    return f"missing_rates_{plain(dataset)}" if dataset else "missing_rates"


def _title(dataset: str, metric: str, kind: str) -> str:
    title = ": ".join(filter(None, [titled(dataset, metric), kind]))
    return title[0].upper() + title[1:]


def _lines(grid: Grid, training: Training, kind: MissingType) -> dict[str, dict[float, Measured]]:
    """Return the values by method and percentage of the test samples that lack a modality."""
    lines: dict[str, dict[float, Measured]] = {}
    for (method, trained, test), measured in grid.items():
        if trained == training and kind in _percentages(test):
            lines.setdefault(method, {})[_percentages(test)[kind]] = measured
    return lines


def _condition(training: Training, test: str) -> str:
    return f"{training.name} in training, {test} in tests"


def _percentages(test: str) -> dict[MissingType, float]:
    """Return the percentage by missing type that a condition belongs to; empty for a condition with noise."""
    condition = parsed(test)
    rates = {} if condition is None else {kind: condition.missing_rate(kind) for kind in MISSING_TYPES}
    return {kind: 100 * rate for kind, rate in rates.items() if rate is not None}
