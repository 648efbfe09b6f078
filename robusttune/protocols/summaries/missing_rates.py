"""Missing rates: a metric by the missing modalities of training and of tests."""

from __future__ import annotations

from robusttune.corruption.grammar import MISSING_TYPES
from robusttune.protocols.kinds import AXES
from robusttune.protocols.measured import Measured, average, best_of, row_cells
from robusttune.protocols.outcomes import Outcome
from robusttune.protocols.summaries.missing_curves import alike_curves, curves_by_test_rate
from robusttune.protocols.summaries.missing_grid import Grid, Training, diagonal, grid_of
from robusttune.protocols.summaries.summary import (
    UNITS,
    Chosen,
    Key,
    Summary,
    best_sentence,
    each_dataset,
    labels_of,
    lookup,
    method_rows,
    relabel,
    titled,
)
from robusttune.report.conditions import in_order
from robusttune.report.document import Section
from robusttune.report.sentences import heading
from robusttune.report.tables import Rows, Table

MEANING = (
    "A rate of 70 % means that 70 % of all samples lack the modality; for both, half of these lack the image and half "
    "the text, and no sample lacks both."
)
USUAL = "70 % missing"  # rate of most published tables, which the finding is about
ALIKE = " in training and tests"


def summarise(outcomes: list[Outcome], chosen: Chosen) -> Summary:
    """Return the tables and the curves of each data set.

    Args:
        outcomes: Outcomes of all planned tests. What is missing in training is in the labels ``type`` and ``rate``;
            what is missing in tests is in the conditions.
        chosen: Metric of each data set that replaces the main metric of its tests.
    """
    return each_dataset(relabel(outcomes, AXES["missing_rates"]), chosen, _of_dataset)


def _of_dataset(outcomes: list[Outcome], dataset: str, metric: str) -> Summary:
    """Return the tables and the curves of one data set."""
    methods, grid = labels_of(outcomes, "method"), grid_of(outcomes, metric)
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
    conditions = [key.condition for key in shown]
    last = next((c for c in reversed(conditions) if USUAL in c), conditions[-1])
    by_method = {method: lookup(shown, dataset, metric)(method, last) for method in methods}
    quantity = f"{heading(metric)}{f' on {dataset}' if dataset else ''} ({last})"
    return Summary(sections, cells | alike, best_sentence(by_method, quantity, metric))


def _alike(grid: Grid) -> dict[tuple[str, str], Measured]:
    """Return the values for the same missing rates in training and tests, and their average over missing types.

    Returns:
        Values by method and condition. The average of a rate needs all missing types of this rate.
    """
    found: dict[tuple[str, str], Measured] = {}
    by_rate: dict[tuple[str, float], dict[str, Measured]] = {}
    for (method, training, _), measured in diagonal(grid).items():
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
    return Section(title, table, curves_by_test_rate(grid, dataset, metric))


def _alike_section(alike: dict[Key, Measured], grid: Grid, methods: list[str], dataset: str, metric: str) -> Section:
    """Return the table and the curves for the same missing rates in training and tests."""
    conditions = [*dict.fromkeys(key.condition for key in alike)]
    rows = method_rows("", methods, conditions, lookup(alike, dataset, metric), metric)
    headers = [condition.removesuffix(ALIKE) for condition in conditions]
    table = Table(_title(dataset, metric, f"the same missing rates{ALIKE}"), headers, [rows], UNITS)
    return Section(table.title, table, alike_curves(grid, dataset, metric))


def _title(dataset: str, metric: str, kind: str) -> str:
    title = ": ".join(filter(None, [titled(dataset, metric), kind]))
    return title[0].upper() + title[1:]


def _condition(training: Training, test: str) -> str:
    return f"{training.name} in training, {test} in tests"
