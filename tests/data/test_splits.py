"""Stratified samples: shares, sizes, seeds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from robusttune.data.splits import UNLABELLED, stratified_sample
from robusttune.errors import RobustTuneError


def test_every_class_keeps_its_share() -> None:
    labels = [[0]] * 500 + [[1]] * 300 + [[2]] * 50 + [[3]] * 10
    taken = stratified_sample(labels, 86, seed=0)
    counts = Counter(labels[row][0] for row in taken)
    assert counts == {0: 50, 1: 30, 2: 5, 3: 1}


def test_several_labels_keep_their_shares() -> None:
    rng = np.random.default_rng(0)
    labels = [np.flatnonzero(rng.random(6) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).tolist() for _ in range(1000)]
    taken = stratified_sample(labels, 200, seed=0)
    assert len(taken) == 200
    for label in range(6):
        share = sum(label in labels[row] for row in taken) / sum(label in row for row in labels)
        assert share == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("size", [0, 1, 7, 30, 59, 60])
def test_exact_size_no_repeats_ascending(size: int) -> None:
    labels = [[row % 7] if row % 5 else [] for row in range(60)]
    taken = stratified_sample(labels, size, seed=3)
    assert len(taken) == size
    assert taken == sorted(set(taken))


def test_depends_on_the_seed_alone() -> None:
    labels = [[row % 3] for row in range(90)]
    assert stratified_sample(labels, 30, 1) == stratified_sample(labels, 30, 1)
    assert stratified_sample(labels, 30, 1) != stratified_sample(labels, 30, 2)


def test_the_rarest_class_comes_first_however_many_there_are() -> None:
    """Row by row the same as by looking for the rarest class anew, each time among all."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        labels = [np.flatnonzero(rng.random(8) < rng.random(8) / 2).tolist() for _ in range(60)]
        assert stratified_sample(labels, 17, seed) == sample_by_searching(labels, 17, seed)


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


def test_tens_of_thousands_of_classes_are_no_obstacle() -> None:
    """To search all classes for each class would take hours here."""
    labels = [[row % 50_000] for row in range(100_000)]
    assert len(stratified_sample(labels, 10_000, seed=0)) == 10_000


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(RobustTuneError, match="4 samples cannot be drawn from 3"):
        stratified_sample([[0]] * 3, 4, 0)
