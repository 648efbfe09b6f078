"""What verification finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Verification:
    """What was found, as plain data.

    Attributes:
        wrong: sentences, each of something that has to be mended.
        notes: sentences, each of something to know.
        splits: of each split, its counts, presence patterns, texts and hash.
        classes: of each class, samples by split.
        images: counts of all splits' images together.
        masks: of each split that lacks sides by protocol, its mask's hash and the presence patterns that it leaves.
        details: all that ``wrong`` and ``notes`` give the first of.
    """

    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    masks: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: dict[str, list[Any]] = field(default_factory=dict)
