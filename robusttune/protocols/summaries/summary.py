"""Parts that all summaries share: their result, and the selection of outcomes and metrics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from robusttune.counting import counted
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.protocols.ledger import plain
from robusttune.protocols.measured import Measured, best_of, row_cells
from robusttune.protocols.outcomes import Outcome, relabelled
from robusttune.report.document import Section
from robusttune.report.sentences import heading, listed
from robusttune.report.tables import Rows

Chosen = Mapping[str, str]  # data set, as `plain` writes it -> metric that replaces the main metric of its tests
UNITS = (
    "In percent, as mean ± standard deviation over seeds. The best of several means is bold; one with missing seeds or "
    "data sets is not compared."
)


class Key(NamedTuple):
    """The place of a value in the tables.

    Attributes:
        method: Label of the method.
        dataset: Data set of the test, or ``average``.
        condition: Kind of training and test; empty if the summary has one only.
        metric: Name of the metric.
        over: Data sets, or conditions, behind an average; empty for a single one.

    Example:
        >>> Key("MMRL", "DTD", "", "new_accuracy").over
        ()
    """

    method: str
    dataset: str
    condition: str
    metric: str
    over: tuple[str, ...] = ()


class Summary(NamedTuple):
    """The tables and plots of a protocol.

    Attributes:
        sections: Sections of the report; the first one has the main table.
        cells: All values of the tables.
        finding: Sentence with the main result.
    """

    sections: list[Section]
    cells: dict[Key, Measured]
    finding: str


def relabel(outcomes: Iterable[Outcome], axes: Collection[str]) -> list[Outcome]:
    """Return the outcomes with the labels of `relabelled`."""
    return [replace(outcome, labels=relabelled(outcome.labels, axes)) for outcome in outcomes]


def where(outcomes: Iterable[Outcome], **labels: str) -> list[Outcome]:
    """Return the outcomes with these labels."""
    return [outcome for outcome in outcomes if labels.items() <= outcome.labels.items()]


def labels_of(outcomes: Iterable[Outcome], axis: str) -> list[str]:
    """Return the labels of an axis in the order of the protocol."""
    return [*dict.fromkeys(outcome.labels[axis] for outcome in outcomes if axis in outcome.labels)]


def metric_of(outcomes: Iterable[Outcome], dataset: str, chosen: Chosen) -> str:
    """Return the metric to show for a data set.

    Args:
        outcomes: Outcomes on the data set.
        dataset: Name of the data set.
        chosen: Metrics that replace the main metric, wherever a test has them.

    Returns:
        Name of the metric; empty if no test is done.
    """
    metric = chosen.get(plain(dataset), "")
    done = [outcome for outcome in outcomes if outcome.values]
    if any(metric in values for outcome in done for values in outcome.values.values()):
        return metric
    return done[0].headline if done else ""


def titled(dataset: str, metric: str) -> str:
    """Return a heading with a data set and its metric.

    Example:
        >>> titled("MM-IMDb", "f1_macro"), titled("", "accuracy")
        ('MM-IMDb, f1 macro', 'accuracy')
    """
    return ", ".join(filter(None, [dataset, heading(metric) if metric else ""]))


def method_rows(
    title: str, methods: Sequence[str], columns: Sequence[str], value: Callable[[str, str], Measured], metric: str
) -> Rows:
    """Return a group of rows with one row per method; methods that are not planned are left out.

    Args:
        title: Heading of the group.
        methods: Methods in order.
        columns: Names of the columns.
        value: Function from a method and a column to the values.
        metric: Name of the metric, which decides whether high values are better.
    """
    table = {method: [value(method, column) for column in columns] for method in methods}
    known = {method: row for method, row in table.items() if any(measured.is_planned for measured in row)}
    best = [best_of(column, metric) for column in zip(*known.values(), strict=True)] or [None] * len(columns)
    return Rows(title, [(method, row_cells(row, best)) for method, row in known.items()])


def lookup(
    cells: Mapping[Key, Measured], dataset: str, metric: str, over: tuple[str, ...] = ()
) -> Callable[[str, str], Measured]:
    """Return a function from a method and a condition to the values on a data set or their average.

    Args:
        cells: All values.
        dataset: Data set, or ``average``.
        metric: Name of the metric.
        over: Data sets, or conditions, behind the average.
    """
    return lambda method, condition: cells.get(Key(method, dataset, condition, metric, over), Measured({}))


def common_metric(metrics: Iterable[str]) -> str:
    """Return the metric that all data sets with a known metric have; empty if they have several or none."""
    known = {metric for metric in metrics if metric}
    return known.pop() if len(known) == 1 else ""


def average_title(count: int, noun: str = "data set") -> str:
    """Return the name of an average.

    Example:
        >>> average_title(11)
        'average over 11 data sets'
    """
    return f"average over {counted(count, noun)}"


def best_sentence(values: Mapping[str, Measured], quantity: str, metric: str) -> str:
    """Return a sentence that names the method with the best value, and the methods with missing parts.

    Args:
        values: Values by method.
        quantity: Name of the quantity, such as ``average harmonic mean``.
        metric: Name of the metric, which decides whether high values are better.

    Example:
        >>> values = {"MMRL": Measured({"1": 81.2}), "MMRL++": Measured({}, "0 of 3 seeds")}
        >>> best_sentence(values, "accuracy", "accuracy")
        'MMRL has the best accuracy, 81.20 %; MMRL++ is incomplete.'
    """
    final = {method: measured.final for method, measured in values.items() if measured.final is not None}
    incomplete = [method for method, measured in values.items() if measured.missing]
    if not final:
        return f"No method has a complete {quantity}."
    best = min(final.values()) if metric in LOWER_IS_BETTER else max(final.values())
    first = [method for method, mean in final.items() if mean == best]
    verb, unit = "have" if len(first) > 1 else "has", "" if metric in LOWER_IS_BETTER else " %"
    sentence = f"{listed(first)} {verb} the best {quantity}, {values[first[0]].text}{unit}"
    if len(values) == 1:
        sentence = f"The {quantity} of {first[0]} is {values[first[0]].text}{unit}"
    if incomplete:
        sentence += f"; {listed(incomplete)} {'are' if len(incomplete) > 1 else 'is'} incomplete"
    return f"{sentence}."


def each_dataset(
    outcomes: list[Outcome], chosen: Chosen, summarise_one: Callable[[list[Outcome], str, str], Summary]
) -> Summary:
    """Return the summaries of all data sets, one after the other.

    Args:
        outcomes: Outcomes of all planned tests.
        chosen: Metric of each data set that replaces the main metric of its tests.
        summarise_one: Function from the outcomes of a data set, its name and its metric to its summary.
    """
    parts = []
    for dataset in labels_of(outcomes, "dataset"):
        own = where(outcomes, dataset=dataset)
        parts.append(summarise_one(own, dataset, metric_of(own, dataset, chosen)))
    cells = {key: measured for part in parts for key, measured in part.cells.items()}
    sections = [section for part in parts for section in part.sections]
    return Summary(sections, cells, " ".join(part.finding for part in parts))
