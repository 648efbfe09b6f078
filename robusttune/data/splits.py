"""Splits of a data set: few-shot samples, base and new classes, and stratified subsets, from labels and a seed."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robusttune.errors import RobustTuneError

UNLABELLED = -1  # class index of rows without a class
VAL_SHOTS = 4  # maximum number of validation samples per class in few-shot training


@dataclass(frozen=True)
class Splits:
    """Settings that select the samples of each split.

    Args:
        val_fraction: Share of the training split that is held out for validation if the source has no validation
            split, in (0, 1). The selection is stratified by class and seeded.
        shots: Number of training samples of each class, at least 1; by default all. Validation then uses at most 4
            samples of each class, as in CoOp (Zhou et al., arXiv 2109.01134).
        classes: Classes to use: ``all``, the first half in label order (``base``), or the second half (``new``). The
            test split keeps all classes with ``base`` if ``data.evaluation.classes`` allows new classes.
        subset: Number of samples to use of each split, at least 1, stratified by class and seeded; for smoke tests.
        check_test: False for a fit that does not read the test split at all. By default it is checked before the fit,
            so that mistakes in it are not found only after training.

    Raises:
        RobustTuneError: A setting is out of its range.

    Example:
        >>> Splits(shots=16, classes="base").val_fraction
        0.1
    """

    val_fraction: float = 0.1
    shots: int | None = None
    classes: Literal["all", "base", "new"] = "all"
    subset: int | None = None
    check_test: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise RobustTuneError(f"data.splits.val_fraction is {self.val_fraction}: give a share between 0 and 1")
        for name in ("shots", "subset"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RobustTuneError(f"data.splits.{name} is {value}: give at least 1")


def chosen_classes(class_names: Sequence[str], which: Literal["all", "base", "new"]) -> list[str]:
    """Return all classes, the first half of them, rounded up (base), or the second half (new).

    Args:
        class_names: Names of all classes, in label order.
        which: Part to return.

    Example:
        >>> chosen_classes(["cake", "pie", "soup"], "base")
        ['cake', 'pie']
    """
    half = math.ceil(len(class_names) / 2)
    return list({"all": class_names, "base": class_names[:half], "new": class_names[half:]}[which])


def draw_shots(labels: Sequence[Sequence[int]], shots: int, generator: random.Random) -> list[int]:
    """Draw a number of rows of each class, or all rows of a class that has fewer.

    The draw follows CoOp (Zhou et al., arXiv 2109.01134): class by class, in the order of their first row.

    Args:
        labels: Class indices of each row, exactly one per row.
        shots: Number of rows of each class, at least 1.
        generator: Random generator of the draw.

    Returns:
        Row numbers, ascending.

    Raises:
        RobustTuneError: A row has several classes, or none.

    Example:
        >>> draw_shots([[0], [0], [1], [1]], shots=2, generator=random.Random(0))
        [0, 1, 2, 3]
    """
    members: dict[int, list[int]] = {}
    for row, classes in enumerate(labels):
        if len(classes) != 1:
            raise RobustTuneError("data.splits.shots is for samples of one class each: leave it out")
        members.setdefault(classes[0], []).append(row)
    drawn = (generator.sample(rows, shots) if len(rows) >= shots else rows for rows in members.values())
    return sorted(row for rows in drawn for row in rows)


def stratified_sample(labels: Sequence[Sequence[int]], size: int, seed: int) -> list[int]:
    """Draw rows so that each class keeps its share.

    This is iterative stratification (Sechidis et al., "On the stratification of multi-label data", 2011). It starts
    with the rarest class and puts each of its samples into the part, drawn or remaining, that needs the class most.
    With one label per sample it equals the usual stratified draw.

    Args:
        labels: Class indices of each row: one in multi-class data, any number in multi-label data.
        size: Number of rows to draw, from 0 to the number of rows.
        seed: Seed of the random order of the rows.

    Returns:
        Row numbers, ascending.

    Raises:
        RobustTuneError: ``size`` is negative or greater than the number of rows.

    Example:
        >>> rows = stratified_sample([[0], [0], [0], [0], [1], [1]], size=3, seed=0)
        >>> sum(row < 4 for row in rows), len(rows)
        (2, 3)
    """
    rows = len(labels)
    if not 0 <= size <= rows:
        raise RobustTuneError(f"{size} samples cannot be drawn from {rows}: ask for at most {rows}")
    order = [int(row) for row in np.random.default_rng(seed).permutation(rows)]
    classes = [list(row_labels) or [UNLABELLED] for row_labels in labels]
    members: dict[int, list[int]] = {}
    for row in order:
        for label in classes[row]:
            members.setdefault(label, []).append(row)
    share = size / max(rows, 1)
    needed_drawn = {label: share * len(class_rows) for label, class_rows in members.items()}
    needed_remaining = {label: (1 - share) * len(class_rows) for label, class_rows in members.items()}
    drawn: set[int] = set()
    decided: set[int] = set()
    rarest = [(needed_drawn[label] + needed_remaining[label], label) for label in needed_drawn]
    heapq.heapify(rarest)
    while needed_drawn:
        count, label = heapq.heappop(rarest)
        if label not in needed_drawn or count != needed_drawn[label] + needed_remaining[label]:
            continue  # outdated entry: the class has become rarer and was pushed again
        for row in members[label]:
            if row in decided:
                continue
            decided.add(row)
            draw = needed_drawn[label] > needed_remaining[label]
            if draw:
                drawn.add(row)
            for other in classes[row]:
                if other in needed_drawn:
                    (needed_drawn if draw else needed_remaining)[other] -= 1
                    heapq.heappush(rarest, (needed_drawn[other] + needed_remaining[other], other))
        del needed_drawn[label], needed_remaining[label]
    return _adjust_size(drawn, order, size)


def _adjust_size(drawn: set[int], order: list[int], size: int) -> list[int]:
    """Add or remove rows until there are exactly ``size``: rounding by class may give a few too many or too few."""
    for row in order:
        if len(drawn) > size:
            drawn.discard(row)
        elif len(drawn) < size:
            drawn.add(row)
    return sorted(drawn)
