"""The report on a protocol: its tables, published numbers beside them, and the runs that are not finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.protocols.ledger import load, plain
from robusttune.protocols.matrix import Protocol
from robusttune.protocols.outcomes import DONE, Outcome, outcomes_of
from robusttune.protocols.paired import difference_section, differences
from robusttune.protocols.published import published_sections
from robusttune.protocols.results import Result
from robusttune.protocols.state import RunState
from robusttune.protocols.summaries import AXES, Summary, labels_of, relabel, summarise
from robusttune.report.document import Document, ExcludedRun, Section
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
    summary = _summary(protocol.summary, outcomes)
    methods = labels_of(relabel(outcomes, AXES[protocol.summary]), "method")
    if baseline is not None and baseline not in methods:
        raise RobustTuneError(f"there is no method {baseline!r:.100} to compare with: choose from {'; '.join(methods)}")
    paired = _paired(protocol.summary, results, summary, baseline or methods[0]) if len(methods) > 1 else []
    return _document(protocol.title, protocol.summary, outcomes, summary, paired)


def document_of(title: str, kind: str, outcomes: list[Outcome]) -> Document:
    """Report on outcomes that were read from JSON: everything but the paired intervals, which need predictions.

    Args:
        title: Title of the protocol.
        kind: Kind of summary, such as ``base_to_new``.
        outcomes: Outcomes of all planned tests.

    Raises:
        RobustTuneError: There is no such kind of summary.

    Example:
        >>> outcome = Outcome({"dataset": "DTD", "method": "MMRL", "shots": "1", "seed": "1"}, headline="accuracy")
        >>> outcome.values["complete"] = {"accuracy": 0.5}
        >>> document_of("Few-shot curves", "few_shot", [outcome]).finding
        'The test is done. MMRL has the best accuracy with 1 shot, 50.00 %.'
    """
    return _document(title, kind, outcomes, _summary(kind, outcomes), [])


def _summary(kind: str, outcomes: list[Outcome]) -> Summary:
    """Return the summary; data sets with published numbers are shown with the published metric."""
    return summarise(kind, outcomes, {plain(published.dataset): published.metric for published in load(kind)})


def _document(title: str, kind: str, outcomes: list[Outcome], summary: Summary, paired: list[Section]) -> Document:
    lines: list[tuple[object, ...]] = []
    for key, measured in summary.cells.items():
        estimate = measured.estimate
        numbers = (None, None, 0) if estimate is None else estimate[:3]
        lines.append((*key[:4], ";".join(key.over), *numbers, measured.missing))
    return Document(
        title=title,
        finding=f"{_progress(outcomes)} {summary.finding}",
        left_out=_left_out(outcomes),
        values=Values(HEADER, lines),
        sections=[*summary.sections, *paired, *published_sections(summary.cells, load(kind))],
    )


def _paired(kind: str, results: Sequence[Result], summary: Summary, baseline: str) -> list[Section]:
    """Return the section with paired differences, or none if there is nothing to compare."""
    metrics: dict[str, list[str]] = {}
    for key in summary.cells:
        known = metrics.setdefault(key.dataset, [])
        if key.metric and key.metric not in known:
            known.append(key.metric)
    section = difference_section(*differences(results, AXES[kind], metrics, baseline), baseline)
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
