"""Which rows go where: pure functions of labels and a seed."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robusttune.errors import RobustTuneError

UNLABELLED = -1  # stands in as the class of rows without any
VAL_SHOTS = 4  # at most, of each class


@dataclass(frozen=True)
class Splits:
    """Which of a source's samples are used, for what.

    Args:
        val_fraction: share of the training split that is held out for validation where the source has no such
            split, in (0, 1); stratified, seeded.
        shots: samples of each class to train on, and at most 4 of each to validate on, by CoOp's convention; by
            default all.
        classes: that are used: all, the first half of them in label order (the base classes), or the others (the new
            ones). Only where the data module lets the test split have new classes does ``base`` leave that whole.
        subset: use only that many samples of each split, stratified and seeded; for smoke runs.

    Raises:
        RobustTuneError: a setting is out of its range.
    """

    val_fraction: float = 0.1
    shots: int | None = None
    classes: Literal["all", "base", "new"] = "all"
    subset: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise RobustTuneError(f"data.splits.val_fraction is {self.val_fraction}: give a share between 0 and 1")
        for name in ("shots", "subset"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RobustTuneError(f"data.splits.{name} is {value}: give at least 1")


def chosen_classes(class_names: Sequence[str], which: Literal["all", "base", "new"]) -> list[str]:
    """All classes, the first half of them, rounded up (base), or the others (new).

    Args:
        class_names: in label order.
        which: of them.
    """
    half = math.ceil(len(class_names) / 2)
    return list({"all": class_names, "base": class_names[:half], "new": class_names[half:]}[which])


def draw_shots(labels: Sequence[Sequence[int]], shots: int, generator: random.Random) -> list[int]:
    """Rows to take so that each class has so many, or all that it has; ascending.

    As CoOp draws them (arXiv 2109.01134): class by class, in the order in which they come up.

    Args:
        labels: for each row the index of its class.
        shots: rows of each class, at least 1.
        generator: that they are drawn with.

    Raises:
        RobustTuneError: a row has several classes, or none.
    """
    members: dict[int, list[int]] = {}
    for row, classes in enumerate(labels):
        if len(classes) != 1:
            raise RobustTuneError("data.splits.shots is for samples of one class each: leave it out")
        members.setdefault(classes[0], []).append(row)
    taken = (generator.sample(rows, shots) if len(rows) >= shots else rows for rows in members.values())
    return sorted(row for rows in taken for row in rows)


def stratified_sample(labels: Sequence[Sequence[int]], size: int, seed: int) -> list[int]:
    """Rows to take so that each class keeps its share, ascending; the other rows are its complement.

    Iterative stratification (Sechidis et al. 2011), which for one label a sample is the ordinary stratified
    draw: the rarest class first, each of its samples goes where the class is still wanted most.

    Args:
        labels: for each row the indices of its classes; one in multi-class data, any number in multi-label data.
        size: rows to take, from 0 to the number of rows.
        seed: of the order in which rows are considered.

    Raises:
        RobustTuneError: there are fewer rows than ``size``.
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
    wanted_here = {label: share * len(rows_of) for label, rows_of in members.items()}
    wanted_there = {label: (1 - share) * len(rows_of) for label, rows_of in members.items()}
    taken: set[int] = set()
    decided: set[int] = set()
    rarest = [(wanted_here[label] + wanted_there[label], label) for label in wanted_here]
    heapq.heapify(rarest)
    while wanted_here:
        count, label = heapq.heappop(rarest)
        if label not in wanted_here or count != wanted_here[label] + wanted_there[label]:
            continue  # it has become rarer since, and stands in the heap again
        for row in members[label]:
            if row in decided:
                continue
            decided.add(row)
            here = wanted_here[label] > wanted_there[label]
            if here:
                taken.add(row)
            for other in classes[row]:
                if other in wanted_here:
                    (wanted_here if here else wanted_there)[other] -= 1
                    heapq.heappush(rarest, (wanted_here[other] + wanted_there[other], other))
        del wanted_here[label], wanted_there[label]
    return _to_size(taken, order, size)


def _to_size(taken: set[int], order: list[int], size: int) -> list[int]:
    """Exactly ``size`` rows: rounding class by class leaves some over or lacking."""
    for row in order:
        if len(taken) > size:
            taken.discard(row)
        elif len(taken) < size:
            taken.add(row)
    return sorted(taken)
