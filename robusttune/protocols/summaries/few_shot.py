"""Few-shot: accuracy over the number of training samples per class, on each data set and on average."""

from __future__ import annotations

from itertools import product

from robusttune.corruption.grammar import COMPLETE
from robusttune.protocols.curves import BANDS, Panel, draw_panels
from robusttune.protocols.kinds import AXES
from robusttune.protocols.ledger import AVERAGE
from robusttune.protocols.measured import Measured, average, measure
from robusttune.protocols.outcomes import Outcome
from robusttune.protocols.summaries.summary import (
    UNITS,
    Chosen,
    Key,
    Summary,
    average_title,
    best_sentence,
    common_metric,
    labels_of,
    lookup,
    method_rows,
    metric_of,
    relabel,
    titled,
    where,
)
from robusttune.report.conditions import natural
from robusttune.report.document import Section
from robusttune.report.sentences import heading
from robusttune.report.tables import Table

FLAT = "A method that is planned for one number of shots only is a dashed horizontal line."


def summarise(outcomes: list[Outcome], chosen: Chosen) -> Summary:
    """Return the table and the curves of a few-shot protocol.

    Args:
        outcomes: Outcomes of all planned tests.
        chosen: Metric of each data set that replaces the main metric of its tests.
    """
    outcomes = relabel(outcomes, AXES["few_shot"])
    datasets, methods = labels_of(outcomes, "dataset"), labels_of(outcomes, "method")
    shots = sorted(labels_of(outcomes, "shots"), key=natural)
    metrics = {dataset: metric_of(where(outcomes, dataset=dataset), dataset, chosen) for dataset in datasets}
    cells = {
        Key(method, dataset, _condition(number), metrics[dataset]): measure(planned, metrics[dataset], COMPLETE)
        for dataset in datasets
        for method in methods
        for number in shots
        if (planned := where(outcomes, dataset=dataset, method=method, shots=number))
    }
    metric = common_metric(metrics.values())
    if len(datasets) > 1 and metric:
        cells |= _averages(cells, methods, datasets, shots, metric)
    conditions = [_condition(number) for number in shots]
    groups, panels = [], []
    for dataset in [*datasets, *([AVERAGE] if len(datasets) > 1 and metric else [])]:
        own = metric if dataset == AVERAGE else metrics[dataset]
        over = tuple(datasets) if dataset == AVERAGE else ()
        title = titled(average_title(len(over)) if over else dataset, own)
        groups.append(method_rows(title, methods, conditions, lookup(cells, dataset, own, over), own))
        panels.append(Panel(title, f"{heading(own)} (%)", _lines(cells, dataset, own, over, shots)))
    table = Table("Few-shot", conditions, [g for g in groups if g.rows], UNITS)
    caption = f"Metric over the number of training samples per class. {BANDS} {FLAT}"
    plot = draw_panels("few_shot", caption, panels, "shots per class", logarithmic=True)
    most = {method: lookup(cells, dataset, own, over)(method, conditions[-1]) for method in methods}
    finding = best_sentence(most, f"{'average ' if over else ''}{heading(own)} with {conditions[-1]}", own)
    return Summary([Section(table.title, table, {"few_shot": plot} if plot else {})], cells, finding)


def _condition(shots: str) -> str:
    return "1 shot" if shots == "1" else f"{shots} shots"


def _averages(
    cells: dict[Key, Measured], methods: list[str], datasets: list[str], shots: list[str], metric: str
) -> dict[Key, Measured]:
    """Return the averages over data sets of each method and number of shots."""
    found = {}
    for method, condition in product(methods, map(_condition, shots)):
        parts = [m for d in datasets if (m := cells.get(Key(method, d, condition, metric))) is not None]
        if any(part.is_planned for part in parts):
            over = tuple(datasets)
            found[Key(method, AVERAGE, condition, metric, over)] = average(parts)
    return found


def _lines(
    cells: dict[Key, Measured], dataset: str, metric: str, over: tuple[str, ...], shots: list[str]
) -> dict[str, dict[float, Measured]]:
    """Return the planned values by method and number of shots."""
    lines: dict[str, dict[float, Measured]] = {}
    numbers = {_condition(number): float(number) for number in shots if number.isdecimal()}
    for key, measured in cells.items():
        if (key.dataset, key.metric, key.over) == (dataset, metric, over) and key.condition in numbers:
            lines.setdefault(key.method, {})[numbers[key.condition]] = measured
    return lines
