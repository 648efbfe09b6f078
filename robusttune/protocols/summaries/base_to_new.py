"""Base to new: accuracy on base and new classes of each data set, and their harmonic mean by two conventions."""

from __future__ import annotations

from collections.abc import Callable

from robusttune.corruption.grammar import COMPLETE
from robusttune.protocols.kinds import AXES
from robusttune.protocols.ledger import AVERAGE
from robusttune.protocols.measured import Measured, average, harmonic, measure
from robusttune.protocols.outcomes import Outcome
from robusttune.protocols.summaries.summary import (
    UNITS,
    Chosen,
    Key,
    Summary,
    average_title,
    best_sentence,
    labels_of,
    method_rows,
    relabel,
    where,
)
from robusttune.report.document import Section
from robusttune.report.tables import Table

BASE, NEW, OF_MEANS, MEAN_OF = "base_accuracy", "new_accuracy", "harmonic_mean", "mean_harmonic_mean"
COLUMNS = {
    BASE: "base classes",
    NEW: "new classes",
    OF_MEANS: "harmonic mean of the means",
    MEAN_OF: "mean of harmonic means",
}
CONVENTIONS = (
    "The harmonic mean of the means is computed from the two means of the same row, which is how papers average over "
    "data sets. The mean of harmonic means first computes the harmonic mean of each seed and data set; it is never "
    "higher."
)


def summarise(outcomes: list[Outcome], chosen: Chosen) -> Summary:
    """Return the table of a base-to-new protocol.

    Args:
        outcomes: Outcomes of all planned tests.
        chosen: Not used: the metrics are those of base-to-new tests.
    """
    outcomes = relabel(outcomes, AXES["base_to_new"])
    datasets, methods = labels_of(outcomes, "dataset"), labels_of(outcomes, "method")
    cells: dict[Key, Measured] = {}
    for method in methods:
        for dataset in datasets:
            for metric, measured in _of_dataset(where(outcomes, method=method, dataset=dataset)).items():
                cells[Key(method, dataset, "", metric)] = measured
        own = [dataset for dataset in datasets if where(outcomes, method=method, dataset=dataset)]
        if len(own) > 1:
            for metric, measured in _of_average(cells, method, own).items():
                cells[Key(method, AVERAGE, "", metric, tuple(own))] = measured
    last = AVERAGE if len(datasets) > 1 else datasets[0]
    groups = [
        method_rows(
            average_title(len(datasets)) if name == AVERAGE else name, methods, [*COLUMNS], _lookup(cells, name), BASE
        )
        for name in [*datasets, *([AVERAGE] if len(datasets) > 1 else [])]
    ]
    table = Table("Base to new", [*COLUMNS.values()], [g for g in groups if g.rows], f"{UNITS} {CONVENTIONS}")
    of_means = {method: _lookup(cells, last)(method, OF_MEANS) for method in methods}
    quantity = "harmonic mean of the average base and new accuracy" if last == AVERAGE else "harmonic mean"
    return Summary([Section(table.title, table, {})], cells, best_sentence(of_means, quantity, OF_MEANS))


def _of_dataset(outcomes: list[Outcome]) -> dict[str, Measured]:
    """Return the values of a method on a data set by metric.

    A model that knows no class names, such as a linear probe, is tested on the base classes alone.
    """
    base, new = measure(outcomes, BASE, COMPLETE), measure(outcomes, NEW, COMPLETE)
    mean_of = measure(outcomes, "harmonic_mean", COMPLETE)
    alone = measure(outcomes, "accuracy", COMPLETE)
    if alone.values and not base.values:
        base, new, mean_of = alone, Measured({}), Measured({})
    return {BASE: base, NEW: new, OF_MEANS: harmonic(base, new), MEAN_OF: mean_of}


def _of_average(cells: dict[Key, Measured], method: str, datasets: list[str]) -> dict[str, Measured]:
    """Return the averages of a method over data sets by metric."""
    found = {}
    for metric in (BASE, NEW, MEAN_OF):
        parts = [cells[Key(method, dataset, "", metric)] for dataset in datasets]
        found[metric] = average(parts) if any(part.is_planned for part in parts) else Measured({})
    return found | {OF_MEANS: harmonic(found[BASE], found[NEW])}


def _lookup(cells: dict[Key, Measured], dataset: str) -> Callable[[str, str], Measured]:
    """Return a function from method and metric to the values on a data set or their average."""
    found = {(key.method, key.metric): measured for key, measured in cells.items() if key.dataset == dataset}
    return lambda method, metric: found.get((method, metric), Measured({}))
