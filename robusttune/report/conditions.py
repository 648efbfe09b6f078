"""Names of conditions: how they are ordered, grouped and read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, get_args

from robusttune.corruption.conditions import MissingType

COMPLETE, MEAN = "complete", "mean"
SIDES = (COMPLETE, "no_image", "no_text")
TYPES: tuple[str, ...] = get_args(MissingType)  # of what is missing at a rate
GROUPS = ("sides withheld", "missing at a rate", "noisy images", "noisy texts", "combined")
PREFIXES = {"missing_": 1, "noisy_image_": 2, "noisy_text_": 3}


class Noise(NamedTuple):
    """What a noisy condition is.

    Attributes:
        side: ``image`` or ``text``.
        kind: of noise.
        severity: 1 to 5.
    """

    side: str
    kind: str
    severity: int


def noise_of(condition: str) -> Noise | None:
    """What noise there is, where there is nothing else."""
    found = re.fullmatch(r"noisy_(image|text)_(\w+)_([1-5])", condition)
    return Noise(found[1], found[2], int(found[3])) if found else None


def in_order(conditions: Iterable[str]) -> list[str]:
    """Each once, by group, and there by name, numbers by size; complete is the first."""
    return sorted({*conditions}, key=lambda name: (_group(name), name not in SIDES, natural(name)))


def by_group(conditions: Iterable[str]) -> dict[str, list[str]]:
    """The conditions in order under the name of their group, of groups that have some."""
    groups: dict[str, list[str]] = {}
    for condition in in_order(conditions):
        groups.setdefault(GROUPS[_group(condition)], []).append(condition)
    return groups


def natural(name: str) -> list[tuple[int, str]]:
    """A key to sort by in which 9 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _group(condition: str) -> int:
    if "+" in condition:
        return GROUPS.index("combined")
    return next((group for prefix, group in PREFIXES.items() if condition.startswith(prefix)), 0)
