"""Robustness measures: area under the missing-rate curve, relative robustness, and effective robustness."""

from __future__ import annotations

from statistics import mean
from typing import NamedTuple

import numpy as np

from robusttune.corruption.grammar import COMPLETE, MISSING_TYPES
from robusttune.errors import RobustTuneError
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.evaluation.robustness import area_under
from robusttune.report.compare import Comparison
from robusttune.report.conditions import in_order
from robusttune.report.models import Model
from robusttune.report.runs import TestResults

LEAST = 3  # least number of runs to fit a trend to


class Areas(NamedTuple):
    """The areas under the curves of the headline metric over the missing rate.

    Attributes:
        rates: Two or more missing rates in [0, 1] that the tests of all runs have in common.
        of_runs: Area of each run by model label, see `area_under`.

    Example:
        >>> Areas([0.0, 0.5, 1.0], {"molt": [0.83, 0.85]}).of_runs["molt"]
        [0.83, 0.85]
    """

    rates: list[float]
    of_runs: dict[str, list[float]]


def areas(comparison: Comparison) -> dict[str, Areas]:
    """Compute the areas under the missing-rate curves of all runs.

    Returns:
        Areas by missing type, one of `MISSING_TYPES`. Types for which all runs share fewer than two rates are left
        out.
    """
    found: dict[str, Areas] = {}
    for kind in MISSING_TYPES:
        curves = {model.label: [_curve(tested, kind) for tested in model.tests] for model in comparison.models}
        rates = sorted(set.intersection(*({*curve} for model_curves in curves.values() for curve in model_curves)))
        if len(rates) > 1:
            found[kind] = Areas(
                rates,
                {
                    label: [area_under(rates, [curve[rate] for rate in rates]) for curve in of_runs]
                    for label, of_runs in curves.items()
                },
            )
    return found


def _curve(tested: TestResults, kind: str) -> dict[float, float]:
    """Return the known values of the headline metric by missing rate."""
    names = tested.curves.get(kind, {})
    return {rate: value for rate, name in names.items() if (value := _value(tested, name, tested.headline)) is not None}


def mean_relative(comparison: Comparison) -> tuple[dict[str, list[float]], list[str]]:
    """Compute the relative robustness: the headline metric divided by its value on complete samples.

    Returns:
        The mean over conditions for each run by model label, and the conditions. These are the conditions, other
        than ``complete``, whose relative value all runs have; without any, both are empty.
    """
    tests = [tested for model in comparison.models for tested in model.tests]
    shared = in_order(
        name
        for name in tests[0].relative
        if name != COMPLETE and all(tested.relative.get(name) is not None for tested in tests)
    )
    found = {
        model.label: [mean(float(tested.relative[name] or 0) for name in shared) for tested in model.tests]
        for model in comparison.models
        if shared
    }
    return found, shared


def effective_robustness(comparison: Comparison, trend: list[Model]) -> dict[str, dict[str, list[float]]]:
    """Compute the effective robustness: a run's metric minus the value that a trend predicts for it.

    The trend predicts the metric under a condition from the metric on complete samples. It is a line through the
    logits of both values, fitted by least squares to models without a robustness intervention (Taori et al. 2020,
    arXiv 2007.00644, section 2).

    Args:
        comparison: Comparison of the models by a metric in [0, 1] whose high values are good.
        trend: Models to fit the trend to.

    Returns:
        Differences by model label and condition, one for each run with known values, in units of the metric.

    Raises:
        RobustTuneError: Lower values of the metric are better, or the trend has fewer than `LEAST` different values on
            complete samples.
    """
    metric = comparison.metric
    if metric in LOWER_IS_BETTER:
        raise RobustTuneError(f"--trend needs a metric for which higher is better, and {metric} is not: leave it out")
    runs = [tested for model in trend for tested in model.tests]
    bases = [value for tested in runs if (value := _value(tested, COMPLETE, metric)) is not None]
    if len({*bases}) < LEAST:
        raise RobustTuneError(
            f"--trend has {len({*bases})} runs with different {metric} on complete samples: name models with {LEAST}"
        )
    found: dict[str, dict[str, list[float]]] = {model.label: {} for model in comparison.models}
    for condition in comparison.conditions:
        line = None if condition == COMPLETE else _line(runs, condition, metric)
        for model in comparison.models if line is not None else ():
            residuals = [_residual(tested, condition, metric, line) for tested in model.tests]
            known = [value for value in residuals if value is not None]
            if known:
                found[model.label][condition] = known
    return found


def _line(runs: list[TestResults], condition: str, metric: str) -> np.poly1d | None:
    """Fit the line from the logit on complete samples to the logit under a condition.

    Return None if fewer than `LEAST` different values on complete samples are known together with one under the
    condition.
    """
    points = [
        (_logit(base, tested.samples), _logit(value, tested.samples))
        for tested in runs
        if (base := _value(tested, COMPLETE, metric)) is not None
        and (value := _value(tested, condition, metric)) is not None
    ]
    if len({base for base, _ in points}) < LEAST:
        return None
    bases, values = zip(*points, strict=True)
    return np.poly1d(np.polyfit(bases, values, 1))


def _residual(tested: TestResults, condition: str, metric: str, line: np.poly1d | None) -> float | None:
    """Return a run's metric minus the value that the line predicts, or None if any of these is unknown."""
    base, value = _value(tested, COMPLETE, metric), _value(tested, condition, metric)
    if base is None or value is None or line is None:
        return None
    return float(value - 1 / (1 + np.exp(-line(_logit(base, tested.samples)))))


def _value(tested: TestResults, condition: str, metric: str) -> float | None:
    return tested.values.get(condition, {}).get(metric)


def _logit(value: float, samples: int) -> float:
    """Return the logit of a value in [0, 1], which is kept half a sample away from 0 and 1 so that it is finite."""
    margin = 0.5 / samples
    value = min(max(value, margin), 1 - margin)
    return float(np.log(value / (1 - value)))
