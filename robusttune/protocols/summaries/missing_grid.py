"""Values by the missing modalities of training and of tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from robusttune.corruption.grammar import COMPLETE, MISSING_TYPES, MissingType
from robusttune.protocols.measured import Measured, measure
from robusttune.protocols.outcomes import Outcome
from robusttune.protocols.summaries.summary import labels_of, where
from robusttune.report.conditions import MEAN, in_order, parsed


class Training(NamedTuple):
    """Missing modalities of a training.

    Attributes:
        kind: Missing type, one of `MISSING_TYPES`; None for complete samples.
        percent: Missing rate in percent; 0 for complete samples.
    """

    kind: MissingType | None
    percent: float

    @property
    def name(self) -> str:
        """Return the name in tables.

        Example:
            >>> Training("both", 70.0).name
            'both, 70 % missing'
        """
        return "complete samples" if self.kind is None else f"{self.kind}, {self.percent:g} % missing"


Grid = dict[tuple[str, Training, str], Measured]  # method, training, test condition


def training_of(labels: Mapping[str, str]) -> Training:
    """Return the missing modalities of a training from the labels of the axes ``type`` and ``rate``.

    Args:
        labels: Labels of a run. A rate is written in percent (``70``, ``70 %``), or as a fraction with a point.

    Example:
        >>> training_of({"type": "image", "rate": "70"}), training_of({"type": "image", "rate": "0.7"})
        (Training(kind='image', percent=70.0), Training(kind='image', percent=70.0))
    """
    kind = next((name for name in MISSING_TYPES if name == labels.get("type", "").lower()), None)
    found = re.search(r"\d+(\.\d+)?", labels.get("rate", ""))
    percent = 0.0 if found is None else float(found[0]) * (100 if found[1] and float(found[0]) <= 1 else 1)
    return Training(kind, percent) if kind is not None and percent > 0 else Training(None, 0.0)


def grid_of(outcomes: list[Outcome], metric: str) -> Grid:
    """Return the values by method, training and test condition. Conditions with noise are left out."""
    tests = in_order(name for o in outcomes for name in o.values if name != MEAN and percentages(name)) or [COMPLETE]
    grid: Grid = {}
    for training in dict.fromkeys(training_of(outcome.labels) for outcome in outcomes):
        trained = [outcome for outcome in outcomes if training_of(outcome.labels) == training]
        for method in labels_of(trained, "method"):
            grid |= {(method, training, test): measure(where(trained, method=method), metric, test) for test in tests}
    return grid


def diagonal(grid: Grid) -> Grid:
    """Return the values for the same missing type and rate in training and tests."""
    return {
        (method, training, test): measured
        for (method, training, test), measured in grid.items()
        if training.kind is not None and percentages(test) == {training.kind: training.percent}
    }


def percentages(test: str) -> dict[MissingType, float]:
    """Return the percentage by missing type that a condition belongs to; empty for a condition with noise."""
    condition = parsed(test)
    rates = {} if condition is None else {kind: condition.missing_rate(kind) for kind in MISSING_TYPES}
    return {kind: 100 * rate for kind, rate in rates.items() if rate is not None}
