"""What conditions say together: what is kept of the complete one, and curves over the missing rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from robusttune.corruption.conditions import Condition, MissingType
from robusttune.types import View


def relative(values: Mapping[str, float | None]) -> dict[str, float]:
    """Of a metric's values by condition, what share of that under ``complete`` is kept under each other."""
    complete = values.get("complete")
    if not complete:
        return {}
    return {name: value / complete for name, value in values.items() if name != "complete" and value is not None}


def curves(conditions: list[Condition], values: Mapping[str, float | None]) -> dict[str, dict[str, Any]]:
    """A metric over the rate at which images, texts, or both are missing.

    Args:
        conditions: of which those are taken that only withhold sides.
        values: of the metric, by condition.

    Returns:
        By missing type, where there are two rates or more: ``rates`` in [0, 1], ``conditions`` and ``values`` at each,
        and the ``area`` under the curve, by trapezoids, over the width of its rates: a mean value.
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
    """The share of samples that lack a side of the kind, None where the condition is about something else."""
    if condition.missing is not None:
        own, percent = condition.missing
        return percent / 100 if own == kind and condition.shown == View() else None
    withheld = {View(): 0.0, View(image=None): 1.0 if kind == "image" else None}
    withheld[View(text=None)] = 1.0 if kind == "text" else None
    return withheld.get(condition.shown)
