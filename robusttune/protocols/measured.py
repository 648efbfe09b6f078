"""Values of a metric over seeds, and their averages over data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from robusttune.counting import counted
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.protocols.outcomes import Outcome
from robusttune.report.estimates import Estimate
from robusttune.report.tables import NOTHING, Cell


@dataclass(frozen=True)
class Measured:
    """The values of a metric over seeds.

    Attributes:
        values: Value by seed, in the units of the report: percent, except for metrics whose low values are good.
        missing: Text about missing results, such as ``2 of 3 seeds``; empty if nothing is. Without values it is
            empty only if none are planned.

    Example:
        >>> Measured({"1": 81.0, "2": 83.0}, "2 of 3 seeds").text
        '82.00 ± 1.41 (2 of 3 seeds)'
    """

    values: Mapping[str, float]
    missing: str = ""

    @property
    def estimate(self) -> Estimate | None:
        """Return mean and standard deviation over seeds, with n - 1 in the denominator; None if no value is known."""
        known = [*self.values.values()]
        return Estimate(mean(known), stdev(known) if len(known) > 1 else None, len(known)) if known else None

    @property
    def mean(self) -> float | None:
        """Return the mean over seeds, or None if no value is known."""
        return None if self.estimate is None else self.estimate.mean

    @property
    def text(self) -> str:
        """Return mean ± standard deviation, and a text about missing results."""
        estimate = self.estimate
        number = NOTHING if estimate is None else f"{estimate.mean:.2f}"
        if estimate is not None and estimate.deviation is not None:
            number += f" ± {estimate.deviation:.2f}"
        return f"{number} ({self.missing})" if self.missing else number

    @property
    def is_planned(self) -> bool:
        """Return whether there are values, or will be."""
        return bool(self.values or self.missing)

    @property
    def final(self) -> float | None:
        """Return the mean, or None if it is unknown or something is missing."""
        return None if self.missing else self.mean


def measure(outcomes: Sequence[Outcome], metric: str, condition: str) -> Measured:
    """Return the values of a metric over the seeds of some tests that differ in their seeds alone.

    Args:
        outcomes: Outcomes of the tests, one per planned seed. A finished test without this condition does not count.
        metric: Name of the metric.
        condition: Condition of the tests.
    """
    outcomes = [outcome for outcome in outcomes if not outcome.values or condition in outcome.values]
    factor = 1 if metric in LOWER_IS_BETTER else 100
    known = {o.seed: factor * value for o in outcomes if (value := o.value(metric, condition)) is not None}
    return Measured(known, "" if len(known) == len(outcomes) else _part(known, outcomes, "seed"))


def average(parts: Sequence[Measured], noun: str = "data set") -> Measured:
    """Return the average over data sets.

    If all data sets have the same seeds, it is taken for each seed, so that its deviation over seeds is known.
    Otherwise it is the average of the means, without a deviation.

    Args:
        parts: Values of each data set over its seeds. Data sets without a value do not count.
        noun: Name of a part, in the singular.

    Example:
        >>> average([Measured({"1": 80.0, "2": 82.0}), Measured({"1": 60.0, "2": 64.0})]).text
        '71.50 ± 2.12'
    """
    known = [part for part in parts if part.values]
    missing = _part(known, parts, noun) if len(known) < len(parts) else ""
    if any(part.missing for part in known):
        missing = missing or "not all seeds"
    elif known and all({*part.values} == {*known[0].values} for part in known):
        return Measured({seed: mean(part.values[seed] for part in known) for seed in known[0].values}, missing)
    return Measured({"": mean(mean(part.values.values()) for part in known)} if known else {}, missing)


def harmonic(base: Measured, new: Measured) -> Measured:
    """Return the harmonic mean of the mean over base classes and the mean over new classes, a single number.

    Example:
        >>> harmonic(Measured({"1": 85.68}), Measured({"1": 77.16})).text
        '81.20'
    """
    b, n = base.mean, new.mean
    if b is None or n is None:
        return Measured({}, base.missing or new.missing)
    return Measured({"": 2 * b * n / (b + n) if b + n else 0.0}, base.missing or new.missing)


def row_cells(row: Iterable[Measured], best: Iterable[float | None]) -> list[Cell]:
    """Return the cells of a row; a mean without missing parts that equals the best of its column is strong.

    Args:
        row: Values of the columns.
        best: Best mean of each column, see `best_of`; None for none.
    """
    return [Cell(m.text, m.final is not None and m.final == b) for m, b in zip(row, best, strict=True)]


def best_of(candidates: Iterable[Measured], metric: str) -> float | None:
    """Return the best mean of some methods; None if no two differ. A mean with missing parts is not compared."""
    means = {m.final for m in candidates if m.final is not None}
    if len(means) < 2:
        return None
    return min(means) if metric in LOWER_IS_BETTER else max(means)


def _part(known: Sequence[object] | Mapping[str, float], planned: Sequence[object], noun: str) -> str:
    return f"{len(known)} of {counted(len(planned), noun)}"
