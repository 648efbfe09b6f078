"""Comparison of conditions: metrics relative to complete data, and curves over the missing rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from robusttune.corruption.conditions import Condition, MissingType
from robusttune.types import View


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
    complete = values.get("complete")
    if not complete:
        return {}
    return {name: value / complete for name, value in values.items() if name != "complete" and value is not None}


def curves(conditions: list[Condition], values: Mapping[str, float | None]) -> dict[str, dict[str, Any]]:
    """Collect a metric's values as curves over the missing rate of images, of texts, and of either.

    Args:
        conditions: Conditions, in any order. Those with noise are ignored.
        values: Values of the metric by condition; None if a condition has no value.

    Returns:
        A curve by missing type, if there are at least two different rates. A curve has ``rates`` in [0, 1], the names
        of the ``conditions`` and the ``values`` at these rates, and ``area``: the area under the curve (trapezoidal
        rule) divided by the range of the rates, which is a mean value.

    Example:
        >>> from robusttune.corruption.conditions import parse
        >>> conditions = [parse(name) for name in ("complete", "missing_image_50", "no_image")]
        >>> values = {"complete": 1.0, "missing_image_50": 0.5, "no_image": 0.0}
        >>> curves(conditions, values)["image"]["area"]
        0.5
    """
    found = {}
    for kind in get_args(MissingType):
        points = sorted(
            (rate, condition.name)
            for condition in conditions
            if (rate := _rate(condition, kind)) is not None and values.get(condition.name) is not None
        )
        rates, names = [rate for rate, _ in points], [name for _, name in points]
        if len(set(rates)) > 1:
            heights = [float(values[name] or 0.0) for name in names]
            steps = zip(rates[1:], rates, heights[1:], heights, strict=False)
            area = sum((right - left) * (high + low) / 2 for right, left, high, low in steps)
            area /= rates[-1] - rates[0]
            found[kind] = {"rates": rates, "conditions": names, "values": heights, "area": area}
    return found


def _rate(condition: Condition, kind: str) -> float | None:
    """Return the missing rate of a condition for a missing type, in [0, 1], or None if it has another type or noise."""
    if condition.missing is not None:
        missing_type, percent = condition.missing
        return percent / 100 if missing_type == kind and condition.shown == View() else None
    rates = {View(): 0.0, View(image=None): 1.0 if kind == "image" else None}
    rates[View(text=None)] = 1.0 if kind == "text" else None
    return rates.get(condition.shown)
