"""Methods that are composed of others, such as one whose setting was chosen separately for each target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from robusttune.protocols.matrix import Labels
from robusttune.protocols.outcomes import Outcome
from robusttune.protocols.results import Result

Composed = Mapping[str, Mapping[str, str]]  # composed method -> data set of the test (its target) -> method


def outcomes_with_composed(outcomes: Sequence[Outcome], composed: Composed) -> list[Outcome]:
    """Return the outcomes, and after them copies with the labels of the composed methods.

    Example:
        >>> outcomes = [Outcome({"dataset": "ImageNet", "target": "DTD", "method": method}) for method in ("a", "b")]
        >>> [outcome.labels["method"] for outcome in outcomes_with_composed(outcomes, {"best": {"DTD": "b"}})]
        ['a', 'b', 'best']
    """
    return [*outcomes, *(replace(o, labels=labels) for o in outcomes for labels in _labels(o.labels, composed))]


def results_with_composed(results: Sequence[Result], composed: Composed) -> list[Result]:
    """Return the results, and after them copies with the labels of the composed methods."""
    return [*results, *(replace(r, labels=labels) for r in results for labels in _labels(r.labels, composed))]


def _labels(labels: Labels, composed: Composed) -> list[Labels]:
    """Return the labels that a test has as a test of composed methods."""
    dataset, method = labels.get("target", labels.get("dataset", "")), labels.get("method")
    return [labels | {"method": label} for label, methods in composed.items() if methods.get(dataset, "") == method]
