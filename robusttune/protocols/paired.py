"""Differences between the methods of a protocol, with intervals of a paired bootstrap over test samples."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from robusttune.corruption.grammar import COMPLETE, STANDARD_CONDITIONS
from robusttune.counting import counted
from robusttune.protocols.outcomes import relabelled
from robusttune.protocols.results import Result
from robusttune.report.conditions import MEAN
from robusttune.report.differences import BootstrappedRun, Difference, bootstrap_test, differences_to, mean_difference
from robusttune.report.document import Section
from robusttune.report.runs import TestResults
from robusttune.report.sentences import heading
from robusttune.report.tables import Cell, Rows, Table

CHANCE = re.compile(r"tested\.(noise|missing)\b")  # test settings whose effect is drawn
NOTE = (
    "In percentage points, with 95 % intervals over samples by a paired bootstrap of 1,000 draws. An interval in bold "
    "excludes 0. A pair is a run of each method with the same seed on the same samples; a method that is planned with "
    "one seed only is paired with every seed of the others. The intervals leave out the variation over seeds."
)


Differences = dict["Place", dict[str, dict[str, Difference]]]  # place -> method -> condition


class Place(NamedTuple):
    """A cell of the tables that compares methods.

    Attributes:
        labels: Labels of the tests, without method and seed, as (axis, label).
        metric: Name of the metric.
    """

    labels: tuple[tuple[str, str], ...]
    metric: str


def differences(
    results: Sequence[Result],
    axes: Sequence[str],
    metrics: Mapping[str, Sequence[str]],
    baseline: str,
    single: Collection[str] = (),
) -> tuple[Differences, dict[str, str]]:
    """Return the differences of all methods to a baseline.

    Args:
        results: Results of the finished tests.
        axes: Axes of the summary, besides data set, method and seed.
        metrics: Metrics to compare, by the data set of the test.
        baseline: Label of the baseline method.
        single: Methods that are planned with one seed only.

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
            seeds = () if _is_without_chance(result.tested) else result.tested.seeds
            run = bootstrap_test(result.predictions, result.tested, metric, seeds, seed)
            places.setdefault(Place(tuple(labels.items()), metric), {}).setdefault(method, []).append(run)
    found: Differences = {}
    reasons: dict[str, str] = {}
    for place, runs in places.items():
        for method in runs if baseline in runs else ():
            pair = {method: runs[method], baseline: runs[baseline]}
            for name, other in ((method, baseline), (baseline, method)):
                if name in single and other not in single:
                    pair[name] = _for_every_seed(pair[name], pair[other])
            own, unpaired = differences_to(pair, baseline, [], place.metric)
            found.setdefault(place, {}).update(own)
            reasons |= unpaired
    return found, reasons


def _is_without_chance(tested: TestResults) -> bool:
    """Return whether neither noise nor missing modalities of a test were drawn, so that its seeds do not matter."""
    drawn = [name for name in tested.values if name not in (*STANDARD_CONDITIONS, MEAN)]
    settings = tested.test_settings.items()
    return not drawn and all(value is None for name, value in settings if CHANCE.match(name))


def _for_every_seed(runs: list[BootstrappedRun], others: list[BootstrappedRun]) -> list[BootstrappedRun]:
    """Repeat the run of a method with a single seed for every seed of another method."""
    return [run._replace(seed=other.seed) for run in runs for other in others]


def difference_section(
    found: Differences, reasons: Mapping[str, str], baseline: str, by_condition: bool
) -> Section | None:
    """Return the table of differences, with a column per method; None if there are neither differences nor reasons.

    Args:
        found: Differences by place, method and condition.
        reasons: Reason for missing differences by method.
        baseline: Label of the baseline method.
        by_condition: Flag for rows of all conditions; otherwise there are rows of complete samples only.
    """
    methods = [*dict.fromkeys(m for by_method in found.values() for m, known in by_method.items() if known)]
    if not methods and not reasons:
        return None
    groups: dict[str, Rows] = {}
    for place, by_method in (*found.items(), *_averages(found).items()):
        labels = dict(place.labels)
        dataset = labels.pop("dataset")
        title = ", ".join(filter(None, [dataset, *(f"{axis} {label}" for axis, label in labels.items())]))
        conditions = dict.fromkeys(c for known in by_method.values() for c in known if by_condition or c == COMPLETE)
        for condition in conditions:
            name = heading(place.metric) + ("" if [*conditions] == [COMPLETE] else f", {condition}")
            cells = [_cell(by_method.get(method, {}).get(condition)) for method in methods]
            groups.setdefault(title, Rows(title, [])).rows.append((name, cells))
    without = [f"There is no paired interval for {m}: {reason}." for m, reason in reasons.items()]
    headers = [f"{method} ({_pairs(found, method)})" for method in methods]
    table = Table(f"Difference to {baseline}", headers, [*groups.values()], " ".join([NOTE, *without]))
    return Section(table.title, table, {})


def _averages(found: Differences) -> Differences:
    """Return the average differences over data sets, or over the targets of a transfer.

    An average needs the differences on all data sets that have any.
    """
    groups: dict[Place, list[Place]] = {}
    for place in found:
        labels = dict(place.labels)
        axis, noun = ("target", "target") if "target" in labels else ("dataset", "data set")
        others = tuple((name, label) for name, label in place.labels if name not in (axis, "dataset"))
        groups.setdefault(Place((("dataset", noun), *others), place.metric), []).append(place)
    averages: Differences = {}
    for group, places in groups.items():
        if len(places) > 1:
            noun = group.labels[0][1]
            label = ("dataset", f"average over {counted(len(places), noun)}")
            name = Place((label, *group.labels[1:]), group.metric)
            averages[name] = _average([found[place] for place in places])
    return averages


def _average(parts: Sequence[Mapping[str, Mapping[str, Difference]]]) -> dict[str, dict[str, Difference]]:
    """Return the average differences by method and condition, where every part has the difference."""
    averages: dict[str, dict[str, Difference]] = {}
    for method, by_condition in parts[0].items():
        for condition in by_condition:
            own = [part.get(method, {}).get(condition) for part in parts]
            known = [difference for difference in own if difference is not None]
            if len(known) == len(parts):
                averages.setdefault(method, {})[condition] = mean_difference(known)
    return averages


def _pairs(found: Differences, method: str) -> str:
    """Return the number of pairs of runs behind the differences of a method, such as ``2 to 3 pairs``."""
    counts = sorted({d.pairs for by_method in found.values() for d in by_method.get(method, {}).values()})
    last = counted(counts[-1], "pair")
    return last if len(counts) == 1 else f"{counts[0]} to {last}"


def _cell(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell()
    mean, low, high = (100 * value for value in difference[:3])
    return Cell(f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]", difference.clear)
