"""Conditions: a metric under each condition of the tests, on each data set."""

from __future__ import annotations

from robusttune.corruption.grammar import COMPLETE
from robusttune.counting import counted
from robusttune.protocols.kinds import AXES
from robusttune.protocols.measured import Measured, average, best_of, measure, row_cells
from robusttune.protocols.outcomes import Outcome
from robusttune.protocols.summaries.summary import (
    UNITS,
    Chosen,
    Key,
    Summary,
    best_sentence,
    each_dataset,
    labels_of,
    lookup,
    relabel,
    titled,
    where,
)
from robusttune.report.conditions import MEAN, by_group, in_order
from robusttune.report.document import Section
from robusttune.report.sentences import heading
from robusttune.report.tables import Rows, Table


def summarise(outcomes: list[Outcome], chosen: Chosen) -> Summary:
    """Return one table per data set, with a row per condition and a column per method.

    Args:
        outcomes: Outcomes of all planned tests.
        chosen: Metric of each data set that replaces the main metric of its tests.
    """
    return each_dataset(relabel(outcomes, AXES["conditions"]), chosen, _of_dataset)


def _of_dataset(outcomes: list[Outcome], dataset: str, metric: str) -> Summary:
    """Return the table of one data set."""
    methods, cells = labels_of(outcomes, "method"), _values(outcomes, dataset, metric)
    groups = []
    for group, conditions in by_group({key.condition for key in cells} - {MEAN}).items():
        value = lookup(cells, dataset, metric)
        rows = {condition: [value(method, condition) for method in methods] for condition in conditions}
        groups.append(
            Rows(group, [(name, row_cells(row, [best_of(row, metric)] * len(row))) for name, row in rows.items()])
        )
    last, over = next(((MEAN, key.over) for key in cells if key.over), ([key.condition for key in cells][-1], ()))
    row = [lookup(cells, dataset, metric, over)(method, last) for method in methods]
    title, note, quantity = titled(dataset, metric) or "Conditions", UNITS, heading(metric)
    if over:
        groups.append(Rows("", [(MEAN, row_cells(row, [best_of(row, metric)] * len(row)))]))
        note += f" The mean is over {counted(len(over), 'condition')} that all methods have."
        quantity = f"mean {quantity} over {counted(len(over), 'condition')}"
    table = Table(title[0].upper() + title[1:], methods, groups, note)
    finding = best_sentence(
        dict(zip(methods, row, strict=True)), f"{quantity} on {dataset}" if dataset else quantity, metric
    )
    return Summary([Section(table.title, table, {})], cells, finding)


def _values(outcomes: list[Outcome], dataset: str, metric: str) -> dict[Key, Measured]:
    """Return the values of all methods on a data set under each condition, and their mean over shared conditions."""
    conditions = in_order(name for outcome in outcomes for name in outcome.values if name != MEAN) or [COMPLETE]
    methods = labels_of(outcomes, "method")
    cells = {
        Key(method, dataset, condition, metric): measure(where(outcomes, method=method), metric, condition)
        for method in methods
        for condition in conditions
    }
    shared = [c for c in conditions if all(cells[Key(m, dataset, c, metric)].is_planned for m in methods)]
    for method in methods if len(conditions) > 1 else ():
        own = [cells[Key(method, dataset, condition, metric)] for condition in shared]
        cells[Key(method, dataset, MEAN, metric, tuple(shared))] = average(own, "condition")
    return cells
