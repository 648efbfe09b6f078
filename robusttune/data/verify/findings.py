"""The result type of `robusttune.data.verify.verify`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Verification:
    """The result of verifying a data set, as plain data that can be written as JSON.

    Attributes:
        problems: Problems to be fixed, one sentence each.
        notes: Observations that are no problems, one sentence each.
        splits: Number of samples per presence pattern, text statistics and content hash, by split.
        classes: Number of samples, by class name and split.
        images: Number of distinct, missing, broken and near-duplicate images in all splits together.
        masks: Hash of the mask and the remaining presence patterns, by split that has missing modalities by protocol.
        details: Complete lists of the samples and images for which ``wrong`` and ``notes`` name only the first.

    Example:
        >>> Verification(problems=["train has 9 samples, 1 fewer than the 10 published"]).notes
        []
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    masks: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: dict[str, list[Any]] = field(default_factory=dict)
