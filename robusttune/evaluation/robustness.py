"""Comparison of conditions: metrics relative to complete data, and curves over the missing rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from robusttune.corruption.grammar import COMPLETE, MISSING_TYPES, Condition


def relative(values: Mapping[str, float | None]) -> dict[str, float]:
    """Divide a metric's value under each condition by its value under ``complete``.

    Args:
        values: Values by condition; None if a condition has no value.

    Returns:
        Quotients by condition, without ``complete``. The result is empty if ``complete`` is missing or 0.

    Example:
        >>> relative({"complete": 0.8, "no_image": 0.4})
        {'no_image': 0.5}
    """
    complete = values.get(COMPLETE)
    if not complete:
        return {}
    return {name: value / complete for name, value in values.items() if name != COMPLETE and value is not None}


def curves(conditions: list[Condition], values: Mapping[str, float | None]) -> dict[str, dict[str, Any]]:
    """Collect a metric's values as curves over the missing rate of images, of texts, and of either.

    Args:
        conditions: Conditions, in any order. Those with noise are ignored.
        values: Values of the metric by condition; None if a condition has no value.

    Returns:
        A curve by missing type, if there are at least two different rates. A curve has ``rates`` in [0, 1], the names
        of the ``conditions`` and the ``values`` at these rates, and ``area``, see `area_under`.

    Example:
        >>> from robusttune.corruption.grammar import parse
        >>> conditions = [parse(name) for name in ("complete", "missing_image_50", "no_image")]
        >>> values = {"complete": 1.0, "missing_image_50": 0.5, "no_image": 0.0}
        >>> curves(conditions, values)["image"]["area"]
        0.5
    """
    found: dict[str, dict[str, Any]] = {}
    for kind in MISSING_TYPES:
        points = sorted(
            (rate, condition.name)
            for condition in conditions
            if (rate := condition.missing_rate(kind)) is not None and values.get(condition.name) is not None
        )
        rates, names = [rate for rate, _ in points], [name for _, name in points]
        if len(set(rates)) > 1:
            heights = [float(values[name] or 0.0) for name in names]
            found[kind] = {"rates": rates, "conditions": names, "values": heights, "area": area_under(rates, heights)}
    return found


def area_under(rates: Sequence[float], values: Sequence[float]) -> float:
    """Return the area under a missing-rate curve by the trapezoidal rule, divided by the range of the rates.

    It is thus a mean value of the metric over the missing rates.

    Args:
        rates: Missing rates, at least two different ones, sorted.
        values: Value of the metric at each rate.

    Example:
        >>> area_under([0.0, 0.5, 1.0], [1.0, 0.5, 0.5])
        0.625
    """
    points = pairwise(zip(rates, values, strict=True))
    area = sum((right - left) * (low + high) / 2 for (left, low), (right, high) in points)
    return area / (rates[-1] - rates[0])
