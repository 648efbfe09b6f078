"""Stratified samples: shares, sizes, seeds."""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusttune.data.class_indices import ClassIndices
from robusttune.data.stratification import stratified_sample
from robusttune.errors import RobustTuneError

UNLABELLED = -1


def sample(labels: list[list[int]], size: int, seed: int) -> list[int]:
    return stratified_sample(ClassIndices.of(labels), size, seed).tolist()


def test_every_class_keeps_its_share() -> None:
    labels = [[0]] * 500 + [[1]] * 300 + [[2]] * 50 + [[3]] * 10
    taken = sample(labels, 86, seed=0)
    counts = Counter(labels[row][0] for row in taken)
    assert counts == {0: 50, 1: 30, 2: 5, 3: 1}


def test_several_labels_keep_their_shares() -> None:
    rng = np.random.default_rng(0)
    labels = [np.flatnonzero(rng.random(6) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).tolist() for _ in range(1000)]
    taken = sample(labels, 200, seed=0)
    assert len(taken) == 200
    for label in range(6):
        share = sum(label in labels[row] for row in taken) / sum(label in row for row in labels)
        assert share == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("size", [0, 1, 7, 30, 59, 60])
def test_exact_size_no_repeats_ascending(size: int) -> None:
    labels = [[row % 7] if row % 5 else [] for row in range(60)]
    taken = sample(labels, size, seed=3)
    assert len(taken) == size
    assert taken == sorted(set(taken))


def test_depends_on_the_seed_alone() -> None:
    labels = [[row % 3] for row in range(90)]
    assert sample(labels, 30, 1) == sample(labels, 30, 1)
    assert sample(labels, 30, 1) != sample(labels, 30, 2)


def test_the_rarest_class_comes_first_however_many_there_are() -> None:
    """Row by row the same as by looking for the rarest class anew, each time among all."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        labels = [np.flatnonzero(rng.random(8) < rng.random(8) / 2).tolist() for _ in range(60)]
        assert sample(labels, 17, seed) == sample_by_searching(labels, 17, seed)


def sample_by_searching(labels: list[list[int]], size: int, seed: int) -> list[int]:
    """Iterative stratification as its paper writes it down."""
    order = [int(row) for row in np.random.default_rng(seed).permutation(len(labels))]
    rows_of: dict[int, list[int]] = {}
    for row in order:
        for label in labels[row] or [UNLABELLED]:
            rows_of.setdefault(label, []).append(row)
    share = size / len(labels)
    wanted = {label: [share * len(rows), (1 - share) * len(rows)] for label, rows in rows_of.items()}
    taken: set[int] = set()
    left = {*order}
    while wanted:
        label = min(wanted, key=lambda name: (sum(wanted[name]), name))
        for row in rows_of[label]:
            if row not in left:
                continue
            left.remove(row)
            here = wanted[label][0] > wanted[label][1]
            taken |= {row} if here else set()
            for other in labels[row] or [UNLABELLED]:
                if other in wanted:
                    wanted[other][not here] -= 1
        del wanted[label]
    for row in order:
        if len(taken) > size:
            taken.discard(row)
        elif len(taken) < size:
            taken.add(row)
    return sorted(taken)


@given(
    st.integers(1, 6).flatmap(
        lambda classes: st.lists(
            st.lists(st.integers(0, classes), max_size=classes, unique=True), min_size=1, max_size=80
        )
    ),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_arrays_draw_what_row_by_row_decisions_draw(labels: list[list[int]], share: float, seed: int) -> None:
    """Decimal shares, too, whose rounding errors decide between parts that need a class equally."""
    for size in (round(share * len(labels)), round(0.1 * len(labels)), len(labels) // 2):
        assert sample(labels, size, seed) == sample_row_by_row(labels, size, seed)
        single = [row[:1] for row in labels]
        assert sample(single, size, seed) == sample_row_by_row(single, size, seed)


def test_arrays_draw_what_row_by_row_decisions_draw_of_many() -> None:
    rng = np.random.default_rng(0)
    shares = rng.random(40) ** 3 * 0.2
    several = [np.flatnonzero(rng.random(40) < shares).tolist() for _ in range(5000)]
    single = [[int(label)] for label in rng.zipf(1.5, 20_000) if label < 500]
    for seed, size in enumerate((500, 1, 2499)):
        assert sample(several, size, seed) == sample_row_by_row(several, size, seed)
        assert sample(single, size, seed) == sample_row_by_row(single, size, seed)


def sample_row_by_row(labels: list[list[int]], size: int, seed: int) -> list[int]:
    """Decide about one row after the other, with a heap of the rarest classes."""
    rows = len(labels)
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
    for row in order:
        if len(drawn) > size:
            drawn.discard(row)
        elif len(drawn) < size:
            drawn.add(row)
    return sorted(drawn)


def test_tens_of_thousands_of_classes_are_no_obstacle() -> None:
    """To search all classes for each class would take hours here."""
    labels = [[row % 50_000] for row in range(100_000)]
    assert len(sample(labels, 10_000, seed=0)) == 10_000


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(RobustTuneError, match="4 samples cannot be drawn from 3"):
        sample([[0]] * 3, 4, 0)
