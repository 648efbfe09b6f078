"""Stratified samples of rows, for one class per row or several, in array operations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robusttune.data.class_indices import CHUNK, ClassIndices, rank_among_equals, rows_by_class
from robusttune.errors import RobustTuneError


def stratified_sample(classes: ClassIndices, size: int, seed: int) -> NDArray[np.int64]:
    """Draw rows so that each class keeps its share.

    This is iterative stratification (Sechidis et al., "On the stratification of multi-label data", 2011). It starts
    with the rarest class and puts each of its samples into the part, drawn or remaining, that needs the class most.
    With one label per sample it equals the usual stratified draw.

    Args:
        classes: Class indices of each row: one in multi-class data, any number in multi-label data.
        size: Number of rows to draw, from 0 to the number of rows.
        seed: Seed of the random order of the rows.

    Returns:
        Row numbers, ascending.

    Raises:
        RobustTuneError: ``size`` is negative or greater than the number of rows.

    Example:
        >>> rows = stratified_sample(ClassIndices.of([[0], [0], [0], [0], [1], [1]]), size=3, seed=0).tolist()
        >>> sum(row < 4 for row in rows), len(rows)
        (2, 3)
    """
    rows = len(classes)
    if not 0 <= size <= rows:
        raise RobustTuneError(f"{size} samples cannot be drawn from {rows}: ask for at most {rows}")
    order = np.random.default_rng(seed).permutation(rows)
    share = size / max(rows, 1)
    if classes.offsets is None:
        drawn = _draw_of_single(classes, order, share)
    else:
        drawn = _draw_of_several(classes, order, share)
        others = order[np.diff(classes.offsets)[order] == 0]  # rows without a class, which are one by themselves
        size_of_others = np.array(len(others))
        drawn[others] = _is_drawn(np.arange(len(others)), *_turns(share * size_of_others, (1 - share) * size_of_others))
    _adjust_size(drawn, order, size)
    return np.flatnonzero(drawn)


def _draw_of_single(classes: ClassIndices, order: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Return which rows are drawn if each has one class, shape (N,), bool: the classes do not affect each other.

    Args:
        classes: Class indices of each row.
        order: Random order of the rows.
        share: Share of each class to draw.
    """
    sizes = classes.sizes()
    draw_first, lead = _turns(share * sizes, (1 - share) * sizes)
    drawn, before = np.zeros(len(classes), dtype=bool), np.zeros(len(sizes), dtype=np.int64)
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        rows = rows[np.argsort(classes.flat[rows], kind="stable")]
        found = classes.flat[rows]
        place = before[found] + rank_among_equals(found)
        drawn[rows] = _is_drawn(place, draw_first[found], lead[found])
        before += np.bincount(found, minlength=len(sizes))
    return drawn


def _draw_of_several(classes: ClassIndices, order: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Return which rows are drawn, shape (N,), bool, class by class; see `_draw_of_single` for the arguments."""
    members = rows_by_class(classes, order)
    sizes = np.array([len(rows) for rows in members])
    to_draw, to_leave = share * sizes, (1 - share) * sizes
    drawn, decided = (np.zeros(len(classes), dtype=bool) for _ in range(2))
    is_open = sizes > 0
    while is_open.any():
        index = int(np.argmin(np.where(is_open, to_draw + to_leave, np.inf)))  # the class with the fewest open rows
        is_open[index] = False
        rows = members[index][~decided[members[index]]]
        decided[rows] = True
        # All rows of the class are decided here, and by the needs of this class alone.
        draw = _is_drawn(np.arange(len(rows)), *_turns(to_draw[index], to_leave[index]))
        drawn[rows] = draw
        for needed, part in ((to_draw, rows[draw]), (to_leave, rows[~draw])):
            others, times = np.unique(classes.select(part).flat, return_counts=True)
            needed[others] = _count_down(needed[others], times)
    return drawn


def _turns(to_draw: NDArray[Any], to_leave: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return the order of decisions for the rows of classes.

    A row is drawn if its class needs more drawn rows than remaining ones, and then needs one fewer. So all rows go to
    the greater need, until it has become the smaller one; from then on, the two parts take turns. The greater need is
    at least half of the number of rows that are left, so the subtractions up to the last row have no rounding errors.

    Args:
        to_draw: Needed number of drawn rows of each class, float64.
        to_leave: Needed number of remaining rows of each class, float64.

    Returns:
        Flags of classes whose first rows are drawn, and the number of rows before the parts take turns.
    """
    draw_first = to_draw > to_leave
    greater, smaller = np.where(draw_first, to_draw, to_leave), np.where(draw_first, to_leave, to_draw)
    lead = np.ceil(greater - smaller).astype(np.int64)
    for _ in range(2):  # The difference has a rounding error; equal needs leave a row, so only to_leave goes on then.
        lead += np.where(draw_first, greater - lead > smaller, greater - lead >= smaller)
    lead -= np.where(draw_first, greater - (lead - 1) <= smaller, greater - (lead - 1) < smaller)
    return draw_first, lead


def _is_drawn(place: NDArray[np.int64], draw_first: NDArray[np.bool_], lead: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether the row at each place of its class is drawn, see `_turns`."""
    in_turn = (place - lead) % 2 == 1  # The first turn is that of the other part.
    return np.where(place < lead, draw_first, np.where(draw_first, in_turn, ~in_turn))


def _count_down(needed: NDArray[np.float64], times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Subtract 1 a number of times from each value, with the rounding errors of one subtraction at a time.

    A subtraction rounds only when the absolute value passes a power of two, so there are few steps to make.
    """
    needed, left = needed.copy(), times.copy()
    while left.any():
        room = np.where(needed >= 1, needed, 2.0 ** np.frexp(needed)[1] + np.minimum(needed, 0))
        steps = np.minimum(left, np.maximum(room.astype(np.int64), 1))
        needed -= steps
        left -= steps
    return needed


def _adjust_size(drawn: NDArray[np.bool_], order: NDArray[np.int64], size: int) -> None:
    """Add or remove the first rows, in place, until there are ``size``: rounding may give a few too many or too few."""
    excess = int(drawn.sum()) - size
    if excess:
        changed = order[drawn[order] == (excess > 0)][: abs(excess)]
        drawn[changed] = excess < 0
