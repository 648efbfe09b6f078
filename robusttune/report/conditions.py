"""Sorting and grouping of test conditions."""

from __future__ import annotations

import re
from collections.abc import Iterable

from robusttune.corruption.grammar import STANDARD_CONDITIONS, Condition, parse
from robusttune.errors import RobustTuneError

MEAN = "mean"
GROUPS = ("missing modality", "missing at a rate", "noisy images", "noisy texts", "combined", "other")


def in_order(conditions: Iterable[str]) -> list[str]:
    """Return each condition once, sorted by group, then by name with numbers by value; ``complete`` is the first.

    Example:
        >>> in_order(["missing_text_50", "no_text", "complete", "no_text"])
        ['complete', 'no_text', 'missing_text_50']
    """
    return sorted({*conditions}, key=lambda name: (_group(name), name not in STANDARD_CONDITIONS, natural(name)))


def by_group(conditions: Iterable[str]) -> dict[str, list[str]]:
    """Return the sorted conditions of each group by the group's name; groups without conditions are left out.

    Example:
        >>> by_group(["missing_text_50", "missing_text_0.1"])
        {'missing at a rate': ['missing_text_0.1', 'missing_text_50']}
    """
    groups: dict[str, list[str]] = {}
    for condition in in_order(conditions):
        groups.setdefault(GROUPS[_group(condition)], []).append(condition)
    return groups


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in names by value, so that 9 comes before 10.

    Example:
        >>> sorted(["run10", "run9"], key=natural)
        ['run9', 'run10']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def parsed(name: str) -> Condition | None:
    """Return a condition by its name, or None for a name that this version does not know.

    Example:
        >>> parsed("noisy_image_blur_3").noise_alone.kind, parsed("noisy_image_fog_3")
        ('blur', None)
    """
    try:
        return parse(name)
    except RobustTuneError:
        return None


def _group(name: str) -> int:
    """Return the index of a condition's group in `GROUPS`."""
    condition = parsed(name)
    if condition is None:
        return GROUPS.index("other")
    if condition.parts > 1:
        return GROUPS.index("combined")
    if condition.missing is not None:
        return GROUPS.index("missing at a rate")
    noise = condition.noise_alone
    return GROUPS.index("missing modality" if noise is None else f"noisy {noise.modality}s")
