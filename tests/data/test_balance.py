"""Balanced sampling: numbers of draws, epochs, ranks and resuming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice, zip_longest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusttune.data import orders
from robusttune.data.balance import Quotas, Sampling, imbalance_note, quotas
from robusttune.data.class_indices import ClassIndices
from robusttune.data.sampler import ResumableSampler
from robusttune.types import Draw

LABELS = st.lists(st.integers(0, 5).map(lambda label: [label]), min_size=1, max_size=60)
MULTILABELS = st.lists(st.lists(st.integers(0, 5), max_size=4, unique=True), min_size=1, max_size=60)
SAMPLING: st.SearchStrategy[Sampling] = st.sampled_from(["balanced", "square_root"])


@pytest.fixture(autouse=True, params=["drawn", "keyed"], scope="module")
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """The orders of small tables, which are drawn as arrays, and those of large ones, which are computed."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "keyed":
            patch.setattr(orders, "DRAWN", 0)
        yield request.param


def draws(found: Quotas, world: int, seed: int = 0, epoch: int = 0, start: int = 0) -> list[list[Draw]]:
    """Return the draws of each rank."""
    samplers = [
        ResumableSampler(len(found.expected), shuffle=True, seed=seed, rank=rank, world_size=world, quotas=found)
        for rank in range(world)
    ]
    for sampler in samplers:
        sampler.resume(epoch, start)
    return [list(sampler) for sampler in samplers]


def joined(parts: list[list[Draw]]) -> list[Draw]:
    """Return the counted draws of all ranks in their order."""
    return [draw for step in zip_longest(*parts) for draw in step if draw is not None and draw.counted]


def within_one(counts: float, expected: float) -> bool:
    """Return whether a count is the floor or the ceiling of the expected one, up to rounding errors."""
    return abs(counts - expected) < 1 + 1e-6


@given(LABELS, SAMPLING)
def test_classes_have_the_published_probabilities(labels: list[list[int]], sampling: Sampling) -> None:
    """p_c is proportional to n_c ** q, with q = 0 and 1/2 (Kang et al. 2020)."""
    found, sizes = quotas(ClassIndices.of(labels), sampling), Counter(label for (label,) in labels)
    powers = {label: size ** {"balanced": 0.0, "square_root": 0.5}[sampling] for label, size in sizes.items()}
    for label, power in powers.items():
        expected = len(labels) * power / sum(powers.values())
        own = [value for value, (other,) in zip(found.expected, labels, strict=True) if other == label]
        assert sum(own) == pytest.approx(expected)
        assert own == pytest.approx([expected / sizes[label]] * sizes[label])


@given(MULTILABELS, SAMPLING, st.integers(0, 99), st.integers(0, 9))
def test_rows_and_classes_are_drawn_as_often_as_expected(
    labels: list[list[int]], sampling: Sampling, seed: int, epoch: int
) -> None:
    found = quotas(ClassIndices.of(labels), sampling)
    drawn = [draw.row for draw in draws(found, 1, seed, epoch)[0]]
    assert len(drawn) == len(labels)
    times = np.bincount(drawn, minlength=len(labels))
    assert all(within_one(count, expected) for count, expected in zip(times, found.expected, strict=True))
    for label in {*found.classes.tolist()}:
        rows = found.classes == label
        assert within_one(times[rows].sum(), found.expected[rows].sum())


@given(LABELS, SAMPLING, st.integers(1, 5), st.integers(0, 9))
def test_ranks_share_the_draws_of_one_process(
    labels: list[list[int]], sampling: Sampling, world: int, epoch: int
) -> None:
    found = quotas(ClassIndices.of(labels), sampling)
    parts = draws(found, world, epoch=epoch)
    assert len({len(part) for part in parts}) == 1
    assert joined(parts) == draws(found, 1, epoch=epoch)[0]


@given(LABELS, SAMPLING, st.integers(1, 3), st.integers(1, 3), st.integers(0, 9), st.data())
def test_an_epoch_continues_where_it_stopped(
    labels: list[list[int]], sampling: Sampling, before: int, after: int, epoch: int, data: st.DataObject
) -> None:
    found = quotas(ClassIndices.of(labels), sampling)
    start = data.draw(st.integers(0, (len(labels) - 1) // before)) * before
    whole = joined(draws(found, before, epoch=epoch))
    assert joined(draws(found, after, epoch=epoch, start=start)) == whole[start:]


@given(LABELS, st.integers(0, 9))
def test_repeats_are_numbered(kind: str, labels: list[list[int]], epoch: int) -> None:
    """So that each draw of a sample has its own augmentation and modality dropout."""
    repeats: dict[int, list[int]] = {}
    for draw in draws(quotas(ClassIndices.of(labels), "balanced"), 1, epoch=epoch)[0]:
        assert draw.epoch == epoch
        repeats.setdefault(draw.row, []).append(draw.repeat)
    for found in repeats.values():
        assert (found if kind == "drawn" else sorted(found)) == [*range(len(found))]


def test_epochs_and_seeds_differ_and_cover_the_large_class() -> None:
    """Of 90 samples with an expected 5/9 draws each, every one is drawn sooner or later."""
    found = quotas(ClassIndices.of([[0]] * 90 + [[1]] * 10), "balanced")
    orders = [[draw.row for draw in draws(found, 1, epoch=epoch)[0]] for epoch in range(20)]
    assert len({*map(tuple, orders)}) == 20
    assert draws(found, 1, seed=1)[0] != draws(found, 1, seed=0)[0]
    assert {row for order in orders for row in order} == {*range(100)}
    assert all(sum(row >= 90 for row in order) == 50 for order in orders)
    # The number of draws has no drift: its mean over epochs is that expected.
    assert np.mean([np.isin(range(90), order).sum() for order in orders]) == pytest.approx(50)


def test_a_large_table_is_balanced(kind: str) -> None:
    """Each class has its share in every part of the epoch, and the rows of a class are drawn equally often."""
    rows = orders.DRAWN + 9 if kind == "drawn" else 50_000
    large = np.zeros(rows, np.int64)
    large[5::100], large[7::1000] = 1, 2
    sizes = np.bincount(large)
    found = Quotas((rows / 3 / sizes)[large], large)
    sampler = ResumableSampler(rows, shuffle=True, seed=0, rank=0, world_size=1, quotas=found)
    drawn = np.array([draw.row for draw in islice(sampler, 30_000)])
    for part in np.split(large[drawn], 3):
        assert np.bincount(part) == pytest.approx(10_000 / 3, abs=5 * (10_000 * 2 / 9) ** 0.5)
    of_rare = np.bincount(drawn[large[drawn] == 2] // 1000)
    assert of_rare.mean() - 6 * of_rare.mean() ** 0.5 < of_rare.min()
    assert of_rare.max() < of_rare.mean() + 6 * of_rare.mean() ** 0.5


def test_a_sample_has_the_weight_of_its_rarest_class() -> None:
    labels = [[0]] * 6 + [[0, 1]] * 2 + [[]]
    found = quotas(ClassIndices.of(labels), "balanced")
    assert found.classes.tolist() == [0] * 6 + [1] * 2 + [-1]
    weights = np.array([1 / 8] * 6 + [1 / 2] * 2 + [1 / 8])  # of 8 and 2 samples; unlabelled: the smallest
    assert found.expected.tolist() == pytest.approx((9 * weights / weights.sum()).tolist())


def test_rows_without_any_label_are_drawn_once_each() -> None:
    assert sorted(draw.row for draw in draws(quotas(ClassIndices.of([[], [], []]), "balanced"), 1)[0]) == [0, 1, 2]


def test_a_class_without_samples_is_ignored() -> None:
    found = quotas(ClassIndices.of([[0], [0], [2], [2]]), "balanced")
    assert found.expected.tolist() == [1, 1, 1, 1]


def test_the_note_counts_and_names() -> None:
    assert imbalance_note({"pie": 99, "soup": 10}) is None
    assert imbalance_note({}) is None
    note = imbalance_note({"pie": 1200, "soup": 1, "stew": 0, "tart": 0})
    assert note == (
        "the training classes are imbalanced, from 1,200 samples of 'pie' to 1 sample of 'soup', and 2 classes have "
        "none: try data.training.balance or model.balance"
    )
