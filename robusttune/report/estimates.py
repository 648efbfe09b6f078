"""Values of a metric for a model: means over seeds, with their deviation or an interval over samples."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

from robusttune.report.conditions import MEAN, in_order
from robusttune.report.runs import TestResults


class Estimate(NamedTuple):
    """The value of a metric for a model.

    Attributes:
        mean: Mean over seeds.
        deviation: Standard deviation over seeds, with n - 1 in the denominator; None for a single seed.
        seeds: Number of seeds with a known value.
        low: Lower end of the 95 % bootstrap interval over samples; None for several seeds or if it is unknown.
        high: Upper end of the 95 % bootstrap interval over samples; None for several seeds or if it is unknown.

    Example:
        >>> Estimate(mean=0.5, deviation=0.25, seeds=3).band
        (0.25, 0.75)
    """

    mean: float
    deviation: float | None
    seeds: int
    low: float | None = None
    high: float | None = None

    @property
    def band(self) -> tuple[float, float]:
        """Return the interval to draw: the one over samples if it is known, else mean ± one standard deviation."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        spread = self.deviation or 0.0
        return self.mean - spread, self.mean + spread


def estimates_of(tests: list[TestResults], metrics: list[str], shared: list[str]) -> dict[str, dict[str, Estimate]]:
    """Return the known estimates of a model by metric, and by condition or ``mean``."""
    estimates: dict[str, dict[str, Estimate]] = {}
    conditions = in_order({name for tested in tests for name in tested.values} - {MEAN})
    for metric in metrics:
        by_condition = {name: _estimate(tests, [name], name, metric) for name in conditions}
        by_condition[MEAN] = _estimate(tests, shared, MEAN, metric)
        estimates[metric] = {name: estimate for name, estimate in by_condition.items() if estimate is not None}
    return estimates


def _estimate(tests: list[TestResults], conditions: list[str], name: str, metric: str) -> Estimate | None:
    """Return the estimate of a metric's mean over conditions, or None if no test has a value under all of them.

    Args:
        tests: Tests of a model, one per seed. Tests without a value under one of the conditions are left out.
        conditions: Conditions to average over.
        name: Name of the interval in the tests: the condition, or ``mean``.
        metric: Name of the metric.
    """
    known = [(t, v) for t in tests if (v := mean_over(t, conditions, metric)) is not None]
    if not known:
        return None
    values = [value for _, value in known]
    if len(values) > 1:
        return Estimate(mean(values), stdev(values), len(values))
    tested = known[0][0]
    # The interval of the mean only holds if the test averaged over the same conditions.
    same_mean = name != MEAN or {*conditions} == {*tested.values} - {MEAN}
    return Estimate(values[0], None, 1, *(tested.intervals.get(name, {}).get(metric, ()) if same_mean else ()))


def mean_over(tested: TestResults, conditions: Sequence[str], metric: str) -> float | None:
    """Return the mean of a metric over conditions.

    Args:
        tested: Results of a test.
        conditions: Names of the conditions to average over.
        metric: Name of the metric.

    Returns:
        The mean, or None if the value is unknown under any condition or there are no conditions.
    """
    values = [tested.values.get(name, {}).get(metric) for name in conditions]
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None
