"""Outcomes of a protocol's planned tests: values of the finished ones, reasons of the others, and their JSON form."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robusttune.protocols.matrix import Labels
from robusttune.protocols.results import Result
from robusttune.protocols.state import Progress, RunState
from robusttune.report.conditions import MEAN
from robusttune.report.runs import Values

DONE = str(Progress.DONE)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one planned test.

    Attributes:
        labels: Labels of the run and of the test, by axis.
        state: State of the test: that of its fit until the fit is done.
        reason: Sentence of the error, or the path of missing data; empty if there is none.
        headline: Name of the main metric; empty unless the test is done.
        values: Values by condition and metric; empty unless the test is done.

    Example:
        >>> values = {"complete": {"accuracy": 0.7}}
        >>> outcome = Outcome({"dataset": "DTD", "seed": "1"}, headline="accuracy", values=values)
        >>> outcome.value("accuracy", "complete")
        0.7
    """

    labels: Labels
    state: str = DONE
    reason: str = ""
    headline: str = ""
    values: Values = field(default_factory=dict)

    @property
    def seed(self) -> str:
        """Return the label of the seed; empty in a protocol without this axis."""
        return self.labels.get("seed", "")

    def value(self, metric: str, condition: str) -> float | None:
        """Return a value, or None if it is unknown."""
        return self.values.get(condition, {}).get(metric)


def relabelled(labels: Mapping[str, str], axes: Collection[str]) -> Labels:
    """Return the labels that a summary knows; all others become part of the method's label.

    So tests that differ in an axis that a summary does not know never count as seeds of one method.

    Args:
        labels: Labels of a test.
        axes: Axes that the summary knows, besides ``dataset``, ``method`` and ``seed``.

    Returns:
        Labels with at least ``dataset``, which may be empty, ``method`` and ``seed``.

    Example:
        >>> relabelled({"dataset": "DTD", "method": "MMRL++", "rank": "4", "seed": "1"}, [])
        {'dataset': 'DTD', 'method': 'MMRL++, rank 4', 'seed': '1'}
    """
    known = ("dataset", "method", "seed", *axes)
    further = [f"{axis} {label}" for axis, label in labels.items() if axis not in known]
    method = ", ".join(([labels["method"]] if "method" in labels else []) + further) or "model"
    own = {axis: labels[axis] for axis in axes if axis in labels}
    return {"dataset": labels.get("dataset", ""), "method": method, "seed": labels.get("seed", ""), **own}


def outcomes_of(results: Sequence[Result], states: Sequence[RunState]) -> list[Outcome]:
    """Return the outcome of every planned test, in the order of the protocol.

    Args:
        results: Results of the finished tests.
        states: States of all planned runs.
    """
    by_labels = {_key(result.labels): result.tested for result in results}
    outcomes = []
    for state in states:
        for test, test_step in zip(state.run.tests, state.tests, strict=True):
            step = test_step if state.fit.progress is Progress.DONE else state.fit
            labels = state.run.labels | test.labels
            tested = by_labels.get(_key(labels)) if step.progress is Progress.DONE else None
            if tested is None:
                outcomes.append(Outcome(labels, str(step.progress), step.reason or ""))
            else:
                outcomes.append(Outcome(labels, headline=tested.headline, values=tested.values))
    return outcomes


def to_rows(outcomes: Iterable[Outcome], metrics: Collection[str] | None = None) -> list[dict[str, Any]]:
    """Return outcomes as plain data for JSON, with one row per value and one per test that is not done.

    Args:
        outcomes: Outcomes of a protocol.
        metrics: Metrics to keep; None for all.

    Returns:
        Rows with the keys ``labels``, ``condition``, ``metric`` and ``value`` (the main metric of a test comes first),
        and rows with the keys ``labels``, ``state`` and ``reason``.

    Example:
        >>> to_rows([Outcome({"seed": "1"}, headline="accuracy", values={"complete": {"accuracy": 0.5}})])
        [{'labels': {'seed': '1'}, 'condition': 'complete', 'metric': 'accuracy', 'value': 0.5}]
    """
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        if outcome.state != DONE:
            rows.append({"labels": outcome.labels, "state": outcome.state, "reason": outcome.reason})
        for condition, values in outcome.values.items():
            for metric, value in sorted(values.items(), key=lambda entry: entry[0] != outcome.headline):
                if condition != MEAN and (metrics is None or metric in metrics):
                    row = {"condition": condition, "metric": metric, "value": value}
                    rows.append({"labels": outcome.labels, **row})
    return rows


def from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Outcome]:
    """Return the outcomes from the rows of `to_rows`. The first metric of a test becomes its main metric.

    Example:
        >>> rows = [{"labels": {"seed": "1"}, "condition": "complete", "metric": "accuracy", "value": 0.5}]
        >>> to_rows(from_rows(rows)) == rows
        True
    """
    outcomes: dict[frozenset[tuple[str, str]], Outcome] = {}
    for row in rows:
        labels = dict(row["labels"])
        if "state" in row:
            outcomes[_key(labels)] = Outcome(labels, str(row["state"]), str(row["reason"]))
            continue
        outcome = outcomes.setdefault(_key(labels), Outcome(labels, headline=str(row["metric"])))
        outcome.values.setdefault(str(row["condition"]), {})[str(row["metric"])] = row["value"]
    return [*outcomes.values()]


def _key(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())
