"""Kinds of summaries, and the axes that each of them knows."""

from __future__ import annotations

# Axes besides dataset, method and seed. All others are part of a method's label.
AXES: dict[str, tuple[str, ...]] = {
    "base_to_new": (),
    "few_shot": ("shots",),
    "transfer": ("target",),
    "missing_rates": ("type", "rate"),
    "conditions": (),
}
BY_CONDITION = ("missing_rates", "conditions")  # kinds with all conditions of a test; others have complete samples only
