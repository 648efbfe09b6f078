"""Which rows go where: pure functions of labels and a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robusttune.errors import RobustTuneError

UNLABELLED = -1  # stands in as the class of rows without any


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
    while wanted_here:
        label = min(wanted_here, key=lambda name: (wanted_here[name] + wanted_there[name], name))
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
