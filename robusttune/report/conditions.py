"""Names of test conditions: parsing, sorting and grouping."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, get_args

from robusttune.corruption.conditions import MissingType

COMPLETE, MEAN = "complete", "mean"
STANDARD_CONDITIONS = (COMPLETE, "no_image", "no_text")
TYPES: tuple[str, ...] = get_args(MissingType)  # which modality is missing at a rate: image, text, or either
GROUPS = ("missing modality", "missing at a rate", "noisy images", "noisy texts", "combined")
PREFIXES = {"missing_": 1, "noisy_image_": 2, "noisy_text_": 3}


class Noise(NamedTuple):
    """The noise of a condition.

    Attributes:
        modality: Noisy modality, ``image`` or ``text``.
        kind: Kind of noise, such as ``gaussian``.
        severity: Severity from 1 to 5.
    """

    modality: str
    kind: str
    severity: int


def noise_of(condition: str) -> Noise | None:
    """Return the noise of a condition; None if it has none or combines it with something else.

    Example:
        >>> noise = noise_of("noisy_image_blur_3")
        >>> noise.kind, noise.severity
        ('blur', 3)
    """
    found = re.fullmatch(r"noisy_(image|text)_(\w+)_([1-5])", condition)
    return Noise(found[1], found[2], int(found[3])) if found else None


def in_order(conditions: Iterable[str]) -> list[str]:
    """Return each condition once, sorted by group, then by name with numbers by value; ``complete`` is the first.

    Example:
        >>> in_order(["missing_text_0.5", "no_text", "complete", "no_text"])
        ['complete', 'no_text', 'missing_text_0.5']
    """
    return sorted({*conditions}, key=lambda name: (_group(name), name not in STANDARD_CONDITIONS, natural(name)))


def by_group(conditions: Iterable[str]) -> dict[str, list[str]]:
    """Return the sorted conditions of each group by the group's name; groups without conditions are left out.

    Example:
        >>> by_group(["missing_text_0.5", "missing_text_0.1"])
        {'missing at a rate': ['missing_text_0.1', 'missing_text_0.5']}
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


def _group(condition: str) -> int:
    """Return the index of a condition's group in `GROUPS`."""
    if "+" in condition:
        return GROUPS.index("combined")
    return next((group for prefix, group in PREFIXES.items() if condition.startswith(prefix)), 0)
