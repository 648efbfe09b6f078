"""Values of a metric over the seeds of a run, and their averages over data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from robusttune.counting import counted
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.protocols.outcomes import Outcome
from robusttune.report.estimates import Estimate
from robusttune.report.tables import Cell


@dataclass(frozen=True)
class Measured:
    """The values of a metric over seeds.

    Attributes:
        values: Value by seed, in the units of the report: percent, except for metrics whose low values are good.
        planned: Number of planned seeds.
        parts: Number of data sets behind an average with a known value; 1 for a single data set.
        planned_parts: Number of data sets that the average is planned over.
        even: Flag for an average whose data sets all have all planned seeds.

    Example:
        >>> Measured({"1": 81.0, "2": 83.0}, planned=3).text
        '82.00 ± 1.41 (2 of 3 seeds)'
    """

    values: Mapping[str, float]
    planned: int
    parts: int = 1
    planned_parts: int = 1
    even: bool = True

    @property
    def mean(self) -> float | None:
        """Return the mean over seeds, or None if no value is known."""
        return mean(self.values.values()) if self.values else None

    @property
    def estimate(self) -> Estimate | None:
        """Return mean and standard deviation over seeds, with n - 1 in the denominator; None if no value is known."""
        known = [*self.values.values()]
        return Estimate(mean(known), stdev(known) if len(known) > 1 else None, len(known)) if known else None

    @property
    def complete(self) -> bool:
        """Return whether the values of all planned seeds and data sets are known."""
        return self.even and len(self.values) >= self.planned and self.parts == self.planned_parts

    @property
    def text(self) -> str:
        """Return mean ± standard deviation, and what is missing."""
        estimate = self.estimate
        if estimate is None:
            return Cell().text
        number = f"{estimate.mean:.2f}" + ("" if estimate.deviation is None else f" ± {estimate.deviation:.2f}")
        if self.parts < self.planned_parts:
            return f"{number} ({self.parts} of {counted(self.planned_parts, 'data set')})"
        if not self.even:
            return f"{number} (not all seeds)"
        if len(self.values) < self.planned:
            return f"{number} ({len(self.values)} of {counted(self.planned, 'seed')})"
        return number


def measure(outcomes: Sequence[Outcome], metric: str, condition: str) -> Measured:
    """Return the values of a metric over the seeds of some tests that differ in their seeds alone.

    Args:
        outcomes: Outcomes of the tests, one per planned seed.
        metric: Name of the metric.
        condition: Condition of the tests.
    """
    factor = 1 if metric in LOWER_IS_BETTER else 100
    known = {o.seed: factor * value for o in outcomes if (value := o.value(metric, condition)) is not None}
    return Measured(known, len(outcomes))


def average(parts: Sequence[Measured]) -> Measured:
    """Return the average over data sets.

    If all of them have the same seeds, the average is taken for each seed, so that its deviation over seeds is known.
    Otherwise it is the average of their means, without a deviation.

    Args:
        parts: Values of each data set over its seeds. Data sets without a value do not count.

    Example:
        >>> average([Measured({"1": 80.0, "2": 82.0}, 2), Measured({"1": 60.0, "2": 64.0}, 2)]).text
        '71.50 ± 2.12'
    """
    known = [part for part in parts if part.values]
    planned = max((part.planned for part in parts), default=1)
    if not known:
        return Measured({}, planned, 0, len(parts))
    seeds = [{*part.values} for part in known]
    if all(part.complete for part in known) and all(own == seeds[0] for own in seeds):
        values = {seed: mean(part.values[seed] for part in known) for seed in known[0].values}
        return Measured(values, planned, len(known), len(parts))
    values = {"": mean(mean(part.values.values()) for part in known)}
    return Measured(values, 1, len(known), len(parts), even=all(part.complete for part in known))


def harmonic(base: Measured, new: Measured) -> Measured:
    """Return the harmonic mean of the mean over base classes and the mean over new classes.

    Args:
        base: Accuracies on base classes.
        new: Accuracies on new classes.

    Example:
        >>> harmonic(Measured({"1": 85.68}, 1), Measured({"1": 77.16}, 1)).text
        '81.20'
    """
    b, n = base.mean, new.mean
    fewer = base if len(base.values) < len(new.values) or not base.complete else new
    if b is None or n is None:
        return replace(fewer, values={})
    value = 2 * b * n / (b + n) if b + n else 0.0
    # One number from the means of all seeds: what is missing in the means is missing here.
    return HarmonicMean({"": value}, 1, fewer.parts, fewer.planned_parts, fewer.even, fewer)


@dataclass(frozen=True)
class HarmonicMean(Measured):
    """A harmonic mean of two means.

    Attributes:
        source: One of the two means, the less complete one.
    """

    source: Measured | None = None

    @property
    def complete(self) -> bool:
        """Return whether both means are complete."""
        return self.source is not None and self.source.complete

    @property
    def text(self) -> str:
        """Return the number, and what is missing in the means."""
        (value,) = self.values.values()
        _, bracket, missing = self.source.text.partition(" (") if self.source is not None else ("", "", "")
        return f"{value:.2f}{bracket}{missing}"


def cells(row: Iterable[Measured], best: Iterable[float | None]) -> list[Cell]:
    """Return the cells of a row; a value that equals the best of its column is strong.

    Args:
        row: Values of the columns.
        best: Best mean of each column; None for none.
    """
    return [Cell(m.text, m.mean is not None and m.mean == b) for m, b in zip(row, best, strict=True)]


def best_of(column: Iterable[Measured], metric: str) -> float | None:
    """Return the best mean of some methods; None if fewer than two means are known or all are equal."""
    means = [m.mean for m in column if m.mean is not None]
    if len({*means}) < 2:
        return None
    return min(means) if metric in LOWER_IS_BETTER else max(means)
