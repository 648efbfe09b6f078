"""Differences between the methods of a protocol, with intervals of a paired bootstrap over test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from robusttune.corruption.grammar import COMPLETE
from robusttune.protocols.outcomes import relabelled
from robusttune.protocols.results import Result
from robusttune.report.conditions import MEAN
from robusttune.report.differences import BootstrappedRun, Difference, bootstrap_test, differences_to
from robusttune.report.document import Section
from robusttune.report.sentences import heading
from robusttune.report.tables import Cell, Rows, Table

NOTE = (
    "In percentage points, with 95 % intervals over samples by a paired bootstrap of 1,000 draws. An interval in bold "
    "excludes 0. Runs with the same seed on the same samples are paired. The intervals leave out the variation over "
    "seeds."
)


class Place(NamedTuple):
    """A place of the tables at which methods are compared.

    Attributes:
        labels: Labels of the tests, without method and seed, as (axis, label).
        metric: Name of the metric.
    """

    labels: tuple[tuple[str, str], ...]
    metric: str


def differences(
    results: Sequence[Result], axes: Sequence[str], metrics: Mapping[str, Sequence[str]], baseline: str
) -> tuple[dict[Place, dict[str, dict[str, Difference]]], dict[str, str]]:
    """Return the differences of all methods to a baseline.

    Args:
        results: Results of the finished tests.
        axes: Axes of the summary, besides data set, method and seed.
        metrics: Metrics to compare, by the data set of the test.
        baseline: Label of the baseline method.

    Returns:
        Differences by place, method and condition; and the reason for missing differences by method.

    Raises:
        RobustTuneError: A file with predictions has another format.
    """
    places: dict[Place, dict[str, list[BootstrappedRun]]] = {}
    for result in results:
        labels = relabelled(result.labels, axes)
        method, seed = labels.pop("method"), labels.pop("seed")
        for metric in metrics.get(labels.get("target", labels["dataset"]), ()):
            run = bootstrap_test(result.predictions, result.tested, metric, result.tested.seeds, seed)
            places.setdefault(Place(tuple(labels.items()), metric), {}).setdefault(method, []).append(run)
    found: dict[Place, dict[str, dict[str, Difference]]] = {}
    reasons: dict[str, str] = {}
    for place, by_method in places.items():
        if baseline in by_method:
            found[place], unpaired = differences_to(by_method, baseline, [], place.metric)
            reasons |= unpaired
    return found, reasons


def difference_section(
    found: Mapping[Place, Mapping[str, Mapping[str, Difference]]], reasons: Mapping[str, str], baseline: str
) -> Section | None:
    """Return the table of differences, with a column per method; None if there are neither differences nor reasons."""
    methods = [*dict.fromkeys(method for by_method in found.values() for method in by_method)]
    if not methods and not reasons:
        return None
    groups: dict[str, Rows] = {}
    for place, by_method in found.items():
        labels = dict(place.labels)
        dataset = labels.pop("dataset")
        title = ", ".join(filter(None, [dataset, *(f"{axis} {label}" for axis, label in labels.items())]))
        conditions = dict.fromkeys(c for by_condition in by_method.values() for c in by_condition if c != MEAN)
        for condition in conditions:
            name = heading(place.metric) + ("" if [*conditions] == [COMPLETE] else f", {condition}")
            cells = [_cell(by_method.get(method, {}).get(condition)) for method in methods]
            groups.setdefault(title, Rows(title, [])).rows.append((name, cells))
    without = [f"There is no paired interval for {m}: {reason}." for m, reason in reasons.items()]
    table = Table(f"Difference to {baseline}", methods, [*groups.values()], " ".join([NOTE, *without]))
    return Section(table.title, table, {})


def _cell(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell()
    mean, low, high = (100 * value for value in difference[:3])
    return Cell(f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]", difference.clear)
