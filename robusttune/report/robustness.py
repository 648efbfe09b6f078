"""What models keep of what they have on complete samples."""

from __future__ import annotations

from statistics import mean
from typing import NamedTuple

import numpy as np

from robusttune.errors import RobustTuneError
from robusttune.evaluation.metrics import LOWER_IS_BETTER
from robusttune.report.compare import Comparison
from robusttune.report.conditions import COMPLETE, TYPES, in_order
from robusttune.report.models import Model
from robusttune.report.runs import Tested

LEAST = 3  # runs that a trend is fitted to


class Areas(NamedTuple):
    """Areas under the curve of the headline over the rate at which something is missing.

    Attributes:
        rates: in [0, 1], those that all runs know, two or more.
        of_runs: label -> of each run the area over these rates, by trapezoids, over their width: a mean value.
    """

    rates: list[float]
    of_runs: dict[str, list[float]]


def areas(comparison: Comparison) -> dict[str, Areas]:
    """By type of what is missing; without types of which models share fewer than two rates."""
    found = {}
    for kind in TYPES:
        curves = {model.label: [_curve(tested, kind) for tested in model.tests] for model in comparison.models}
        rates = sorted(set.intersection(*({*curve} for of_model in curves.values() for curve in of_model)))
        if len(rates) > 1:
            of_runs = {label: [_area(curve, rates) for curve in of_model] for label, of_model in curves.items()}
            found[kind] = Areas(rates, of_runs)
    return found


def _curve(tested: Tested, kind: str) -> dict[float, float]:
    """The headline by rate, where it is known."""
    at = tested.curves.get(kind, {})
    return {rate: value for rate, name in at.items() if (value := _value(tested, name, tested.headline)) is not None}


def _area(curve: dict[float, float], rates: list[float]) -> float:
    heights = [curve[rate] for rate in rates]
    return float(np.dot(np.diff(rates), np.add(heights[1:], heights[:-1]) / 2) / (rates[-1] - rates[0]))


def mean_relative(comparison: Comparison) -> tuple[dict[str, list[float]], list[str]]:
    """By label, of each run: the mean over conditions of the headline as a share of that of complete samples.

    Returns:
        The shares, and the conditions: those of all models but that of complete samples.
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
    """What each run has under a condition beyond what a trend predicts from what it has on complete samples.

    Of Taori et al. (2020, arXiv 2007.00644, section 2): the trend is a line, fitted by least squares to the logits of
    the values of models without a robustness intervention.

    Returns:
        label -> condition -> a value for each run, in the metric's own terms.

    Raises:
        RobustTuneError: the metric is no share, or the trend has too few runs with different values.
    """
    metric = comparison.metric
    if metric in LOWER_IS_BETTER:
        raise RobustTuneError(f"--trend is for shares that grow, and {metric} is none: leave it out")
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
            beyond = [_beyond(tested, condition, metric, line) for tested in model.tests]
            known = [value for value in beyond if value is not None]
            if known:
                found[model.label][condition] = known
    return found


def _line(runs: list[Tested], condition: str, metric: str) -> np.poly1d | None:
    """From the logit on complete samples to that under a condition; None where too few runs know both."""
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


def _beyond(tested: Tested, condition: str, metric: str, line: np.poly1d | None) -> float | None:
    base, value = _value(tested, COMPLETE, metric), _value(tested, condition, metric)
    if base is None or value is None or line is None:
        return None
    return float(value - 1 / (1 + np.exp(-line(_logit(base, tested.samples)))))


def _value(tested: Tested, condition: str, metric: str) -> float | None:
    return tested.values.get(condition, {}).get(metric)


def _logit(share: float, samples: int) -> float:
    """Finite: all and nothing are taken for half a sample from it."""
    least = 0.5 / samples
    share = min(max(share, least), 1 - least)
    return float(np.log(share / (1 - share)))
