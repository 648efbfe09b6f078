"""Settings that select the samples of each split, base and new classes, and the draw of few-shot samples."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robusttune.data.class_indices import ClassIndices, by_first_appearance, rows_by_class
from robusttune.errors import RobustTuneError

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


def draw_shots(classes: ClassIndices, shots: int, generator: random.Random) -> NDArray[np.int64]:
    """Draw a number of rows of each class, or all rows of a class that has fewer.

    The draw follows CoOp (Zhou et al., arXiv 2109.01134): class by class, in the order of their first row.

    Args:
        classes: Class indices of each row, exactly one per row.
        shots: Number of rows of each class, at least 1.
        generator: Random generator of the draw.

    Returns:
        Row numbers, ascending.

    Raises:
        RobustTuneError: A row has several classes, or none.

    Example:
        >>> draw_shots(ClassIndices.of([[0], [0], [1], [1]]), shots=2, generator=random.Random(0)).tolist()
        [0, 1, 2, 3]
    """
    if classes.offsets is not None:
        raise RobustTuneError("data.splits.shots is for samples of one class each: leave it out")
    members = rows_by_class(by_first_appearance(classes))
    drawn = [rows[generator.sample(range(len(rows)), shots)] if len(rows) >= shots else rows for rows in members]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *drawn]))
