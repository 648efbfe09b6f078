"""All values of a report as the lines of a CSV file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from robusttune.report.compare import Comparison

HEADER = ("model", "condition", "metric", "mean", "deviation", "seeds", "low", "high")


class Values(NamedTuple):
    """All values of a report, for its CSV file.

    Attributes:
        header: Names of the columns.
        lines: Lines with one entry per column; None for an unknown value.

    Example:
        >>> Values(("model", "accuracy"), [("molt", 0.91)]).header
        ('model', 'accuracy')
    """

    header: tuple[str, ...]
    lines: list[tuple[object, ...]]


def values_of(comparison: Comparison) -> Values:
    """Return one line per model, condition and metric.

    Differences to the baseline have the metric ``<metric>_difference``, and ``seeds`` is their number of pairs of runs.
    ``low`` and ``high`` are the ends of the 95 % intervals over samples.
    """
    return Values(HEADER, [*_lines(comparison)])


def _lines(comparison: Comparison) -> Iterator[tuple[object, ...]]:
    """Yield the lines with the columns of `HEADER`."""
    for label, metrics in comparison.estimates.items():
        for metric, conditions in metrics.items():
            for condition, e in conditions.items():
                yield label, condition, metric, e.mean, e.deviation, e.seeds, e.low, e.high
        for condition, d in comparison.differences.get(label, {}).items():
            yield label, condition, f"{comparison.metric}_difference", d.mean, None, d.pairs, d.low, d.high
