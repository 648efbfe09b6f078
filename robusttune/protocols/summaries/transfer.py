"""Transfer: models trained on one data set, tested on others."""

from __future__ import annotations

from dataclasses import replace

from robusttune.corruption.grammar import COMPLETE
from robusttune.protocols.kinds import AXES
from robusttune.protocols.ledger import AVERAGE
from robusttune.protocols.measured import average, best_of, measure, row_cells
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
    metric_of,
    relabel,
    titled,
    where,
)
from robusttune.report.document import Section
from robusttune.report.sentences import heading
from robusttune.report.tables import Rows, Table


def summarise(outcomes: list[Outcome], chosen: Chosen) -> Summary:
    """Return one table per training data set, with a row per target and a column per method.

    Args:
        outcomes: Outcomes of all planned tests. A test without a target is one on the training data set.
        chosen: Metric of each target that replaces the main metric of its tests.
    """
    relabelled = relabel(outcomes, AXES["transfer"])
    outcomes = [replace(o, labels={"target": o.labels["dataset"], **o.labels}) for o in relabelled]
    parts = [_of_source(where(outcomes, dataset=source), source, chosen) for source in labels_of(outcomes, "dataset")]
    sections = [section for part in parts for section in part.sections]
    cells = {key: measured for part in parts for key, measured in part.cells.items()}
    return Summary(sections, cells, " ".join(part.finding for part in parts))


def _of_source(outcomes: list[Outcome], source: str, chosen: Chosen) -> Summary:
    """Return the table of the models that were trained on one data set."""
    targets, methods = labels_of(outcomes, "target"), labels_of(outcomes, "method")
    condition = f"trained on {source}" if source else ""
    metrics = {target: metric_of(where(outcomes, target=target), target, chosen) for target in targets}
    cells = {
        Key(method, target, condition, metrics[target]): measure(planned, metrics[target], COMPLETE)
        for target in targets
        for method in methods
        if (planned := where(outcomes, target=target, method=method))
    }
    others = tuple(target for target in targets if target != source)
    metric = common_metric(metrics[target] for target in others)
    if len(others) > 1 and metric:
        for method in methods:
            own = [measured for t in others if (measured := cells.get(Key(method, t, condition, metric))) is not None]
            if any(measured.is_planned for measured in own):
                cells[Key(method, AVERAGE, condition, metric, others)] = average(own, "target")
    rows: list[tuple[str, str, str, tuple[str, ...]]] = [
        (target, target, metrics[target], ()) for target in (source, *others) if target in targets
    ]
    rows += [(average_title(len(others), "target"), AVERAGE, metric, others)] if len(others) > 1 and metric else []
    same = common_metric(metrics.values())
    groups: dict[str, Rows] = {}
    for name, dataset, own_metric, over in rows:
        values = [lookup(cells, dataset, own_metric, over)(method, condition) for method in methods]
        best = best_of(values, own_metric)
        group = "training data set" if dataset == source else "" if dataset == AVERAGE else "targets"
        row = (name if same else titled(name, own_metric), row_cells(values, [best] * len(values)))
        groups.setdefault(group, Rows(group, [])).rows.append(row)
    title = titled(f"Transfer from {source}" if source else "Transfer", same)
    table = Table(title, methods, [*groups.values()], UNITS)
    last = rows[-1]
    by_method = {m: lookup(cells, last[1], last[2], last[3])(m, condition) for m in methods}
    quantity = " ".join(filter(None, [heading(last[2]), f"on {last[0]}" if last[0] else ""]))
    finding = best_sentence(by_method, quantity, last[2])
    return Summary([Section(title, table, {})], cells, finding)
