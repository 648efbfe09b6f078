"""Conditions: a metric under each condition of the tests, on each data set."""

from __future__ import annotations

from robusttune.corruption.grammar import COMPLETE
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
    metric_of,
    relabel,
    titled,
    where,
)
from robusttune.report.conditions import MEAN, by_group, in_order
from robusttune.report.document import Section
from robusttune.report.sentences import heading
from robusttune.report.tables import Cell, Rows, Table
AXES: tuple[str, ...] = ()


def summarise(outcomes: list[Outcome], chosen: Chosen) -> Summary:
    """Return one table per data set, with a row per condition and a column per method.

    Args:
        outcomes: Outcomes of all planned tests.
        chosen: Metric of each data set that replaces the main metric of its tests.
    """
    outcomes = relabel(outcomes, AXES)
    sections, cells, findings = [], {}, []
    for dataset in labels_of(outcomes, "dataset"):
        own = where(outcomes, dataset=dataset)
        metric = metric_of(own, dataset, chosen)
        values = values_by_condition(own, dataset, metric)
        cells |= values
        methods = labels_of(own, "method")
        table = _table(values, methods, dataset, metric)
        sections.append(Section(table.title, table, {}))
        last = [key.condition for key in values][-1]
        by_method = {method: lookup(values, dataset, metric)(method, last) for method in methods}
        quantity = f"mean {heading(metric)} over conditions" if last == MEAN else heading(metric)
        findings.append(best_sentence(by_method, f"{quantity} on {dataset}" if dataset else quantity, metric))
    return Summary(sections, cells, " ".join(findings))


def values_by_condition(outcomes: list[Outcome], dataset: str, metric: str) -> dict[Key, Measured]:
    """Return the values of all methods on a data set under each condition, and their mean over conditions."""
    conditions = in_order(name for outcome in outcomes for name in outcome.values if name != MEAN) or [COMPLETE]
    cells = {}
    for method in labels_of(outcomes, "method"):
        planned = where(outcomes, method=method)
        own = {condition: measure(planned, metric, condition) for condition in conditions}
        cells |= {Key(method, dataset, condition, metric): measured for condition, measured in own.items()}
        if len(conditions) > 1:
            cells[Key(method, dataset, MEAN, metric)] = average([*own.values()], "condition")
    return cells


def _table(cells: dict[Key, Measured], methods: list[str], dataset: str, metric: str) -> Table:
    """Return the table of a data set."""
    names = {key.condition for key in cells} - {MEAN}
    groups = [
        Rows(group, [_row(cells, methods, dataset, metric, condition) for condition in conditions])
        for group, conditions in by_group(names).items()
    ]
    if any(key.condition == MEAN for key in cells):
        groups.append(Rows("", [_row(cells, methods, dataset, metric, MEAN)]))
    title = titled(dataset, metric) or "Conditions"
    return Table(title[0].upper() + title[1:], methods, groups, UNITS)


def _row(
    cells: dict[Key, Measured], methods: list[str], dataset: str, metric: str, condition: str
) -> tuple[str, list[Cell]]:
    """Return a row with a cell per method; the best mean is strong."""
    values = [lookup(cells, dataset, metric)(method, condition) for method in methods]
    return condition, row_cells(values, [best_of(values, metric)] * len(values))
