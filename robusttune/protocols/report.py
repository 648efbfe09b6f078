"""The report on a protocol: its tables, published numbers beside them, and the runs that are not finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.protocols.composed import outcomes_with_composed, results_with_composed
from robusttune.protocols.kinds import AXES, BY_CONDITION
from robusttune.protocols.ledger import load, plain
from robusttune.protocols.matrix import Protocol
from robusttune.protocols.outcomes import DONE, Outcome, outcomes_of
from robusttune.protocols.paired import difference_section, differences
from robusttune.protocols.published import published_sections
from robusttune.protocols.results import Result
from robusttune.protocols.state import RunState
from robusttune.protocols.summaries import Summary, summarise
from robusttune.protocols.summaries.base_to_new import MEAN_OF
from robusttune.protocols.summaries.summary import relabel
from robusttune.report.document import Document, ExcludedRun, Section
from robusttune.report.sentences import listed
from robusttune.report.values import Values

HEADER = ("method", "dataset", "condition", "metric", "over", "mean", "deviation", "seeds", "missing")


def report_on(
    protocol: Protocol, results: Sequence[Result], states: Sequence[RunState], baseline: str | None = None
) -> Document:
    """Report on a protocol, whether all of its runs are finished or not.

    Args:
        protocol: Protocol of the runs.
        results: Results of the finished tests.
        states: States of all planned runs.
        baseline: Method that the others are compared with by a paired bootstrap; None for the first one.

    Returns:
        Report that `robusttune.report.write` writes.

    Raises:
        RobustTuneError: The protocol has no such summary or baseline, or predictions cannot be read.
    """
    outcomes = outcomes_of(results, states)
    summary = _summary(protocol, outcomes)
    methods = [*dict.fromkeys(key.method for key in summary.cells)]
    if baseline is not None and baseline not in methods:
        raise RobustTuneError(f"there is no method {baseline!r:.100} to compare with: choose from {'; '.join(methods)}")
    paired: list[Section] = []
    if len(methods) > 1:
        paired = _paired(protocol, outcomes, results, summary, baseline or methods[0])
    return _document(protocol, outcomes, summary, paired)


def document_of(protocol: Protocol, outcomes: list[Outcome]) -> Document:
    """Report on outcomes that were read from JSON: everything but the paired intervals, which need predictions.

    Args:
        protocol: Protocol of the tests.
        outcomes: Outcomes of all planned tests.

    Raises:
        RobustTuneError: The protocol has no such summary.

    Example:
        >>> from pathlib import Path
        >>> outcome = Outcome({"dataset": "DTD", "method": "MMRL", "shots": "1", "seed": "1"}, headline="accuracy")
        >>> outcome.values["complete"] = {"accuracy": 0.5}
        >>> document_of(Protocol("few", Path("few.yaml"), "Few-shot", "few_shot", axes={}), [outcome]).finding
        'The test is done. The accuracy with 1 shot of MMRL is 50.00 %.'
    """
    return _document(protocol, outcomes, _summary(protocol, outcomes), [])


def _summary(protocol: Protocol, outcomes: list[Outcome]) -> Summary:
    """Return the summary; data sets with published numbers are shown with the published metric."""
    chosen = {plain(published.dataset): published.metric for published in load(protocol.summary)}
    return summarise(protocol.summary, outcomes_with_composed(outcomes, protocol.composed), chosen)


def _document(protocol: Protocol, outcomes: list[Outcome], summary: Summary, paired: list[Section]) -> Document:
    lines: list[tuple[object, ...]] = []
    for key, measured in summary.cells.items():
        estimate = measured.estimate
        numbers = (None, None, 0) if estimate is None else estimate[:3]
        lines.append((*key[:4], ";".join(key.over), *numbers, measured.missing))
    return Document(
        title=protocol.title,
        finding=f"{_progress(outcomes)} {summary.finding}",
        left_out=_left_out(outcomes),
        values=Values(HEADER, lines),
        sections=[
            *_with_note(summary.sections, protocol.composed),
            *paired,
            *published_sections(summary.cells, load(protocol.summary)),
        ],
    )


def _with_note(sections: Sequence[Section], composed: Mapping[str, object]) -> list[Section]:
    """Return the sections; the first table says which methods are composed of others."""
    first, *others = sections
    if not composed or first.table is None:
        return [first, *others]
    note = f"{listed(composed)}: for each data set the values of another method, which the protocol names."
    return [first._replace(table=first.table._replace(note=f"{first.table.note} {note}")), *others]


def _paired(
    protocol: Protocol, outcomes: list[Outcome], results: Sequence[Result], summary: Summary, baseline: str
) -> list[Section]:
    """Return the section with paired differences, or none if there is nothing to compare."""
    axes = AXES[protocol.summary]
    metrics: dict[str, list[str]] = {}
    for key in summary.cells:
        known = metrics.setdefault(key.dataset, [])
        if key.metric and key.metric not in known and key.metric != MEAN_OF:
            known.append(key.metric)
    seeds: dict[str, set[str]] = {}
    for outcome in relabel(outcomes_with_composed(outcomes, protocol.composed), axes):
        seeds.setdefault(outcome.labels["method"], set()).add(outcome.seed)
    single = [method for method, own in seeds.items() if len(own) == 1]
    tests = results_with_composed(results, protocol.composed)
    found, reasons = differences(tests, axes, metrics, baseline, single)
    section = difference_section(found, reasons, baseline, protocol.summary in BY_CONDITION)
    return [section] if section is not None else []


def _progress(outcomes: Sequence[Outcome]) -> str:
    """Return a sentence with the number of tests in each state."""
    counts = Counter(outcome.state for outcome in outcomes)
    done = counts.pop(DONE, 0)
    if not counts:
        return f"All {counted(done, 'test')} are done." if done != 1 else "The test is done."
    others = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    return f"{done:,} of {counted(len(outcomes), 'test')} are done ({others})."


def _left_out(outcomes: Iterable[Outcome]) -> list[ExcludedRun]:
    """Return the tests that are not done; those that differ in their seeds alone are one entry."""
    seeds: dict[tuple[str, str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.state != DONE:
            name = ", ".join(_named(axis, label) for axis, label in outcome.labels.items() if axis != "seed")
            seeds.setdefault((name, outcome.state, outcome.reason), []).append(outcome.labels.get("seed", ""))
    return [
        ExcludedRun(_with_seeds(name, labels), f"{state}: {reason}" if reason else state, "")
        for (name, state, reason), labels in seeds.items()
    ]


def _named(axis: str, label: str) -> str:
    """Return a label; one that is a number with its axis."""
    return f"{axis} {label}" if label.replace(".", "").isdecimal() else label


def _with_seeds(name: str, seeds: Sequence[str]) -> str:
    known = [seed for seed in seeds if seed]
    return f"{name} (seed{'s' if len(known) > 1 else ''} {', '.join(known)})" if known else name
