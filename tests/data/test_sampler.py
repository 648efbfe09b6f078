"""The order of samples: complete, the same for any number of ranks, resumable."""

from __future__ import annotations

import tracemalloc
from itertools import islice, zip_longest

import numpy as np
import pytest

from robusttune.data import orders
from robusttune.data.sampler import ResumableSampler
from robusttune.types import Draw


def draws(rows: int, world: int, epoch: int = 0, start: int = 0, shuffle: bool = True) -> list[list[Draw]]:
    samplers = [ResumableSampler(rows, shuffle=shuffle, seed=5, rank=r, world_size=world) for r in range(world)]
    for sampler in samplers:
        sampler.resume(epoch, start)
    return [list(sampler) for sampler in samplers]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 2, 10, 13])
def test_each_sample_counts_once_whatever_the_ranks(rows: int, world: int) -> None:
    parts = draws(rows, world)
    assert len({len(part) for part in parts}) == 1
    everything = [draw for step in zip(*parts, strict=True) for draw in step]
    counted = [draw.row for draw in everything if draw.counted]
    assert counted == [draw.row for draw in draws(rows, 1)[0]]
    assert sorted(counted) == list(range(rows))


def test_every_epoch_has_its_own_order() -> None:
    orders = [[draw.row for draw in draws(20, 1, epoch)[0]] for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert {draw.epoch for draw in draws(20, 1, epoch=2)[0]} == {2}
    assert [draw.row for draw in draws(5, 1, epoch=2, shuffle=False)[0]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (2, 1), (1, 3)])
def test_goes_on_where_it_stopped_also_with_other_ranks(before: int, after: int) -> None:
    """12 samples over all ranks were taken; the rest follows as if nothing had happened."""
    whole = [d for step in zip_longest(*draws(25, before, epoch=4)) for d in step if d and d.counted]
    rest = [d for step in zip_longest(*draws(25, after, epoch=4, start=12)) for d in step if d and d.counted]
    assert rest == whole[12:]


def test_the_epoch_after_the_resumed_one_is_whole() -> None:
    sampler = ResumableSampler(10, shuffle=True, seed=0, rank=0, world_size=1)
    sampler.resume(3, 8)
    assert len(list(sampler)) == 2
    sampler.set_epoch(4)
    assert len(list(sampler)) == 10
    assert len(sampler) == 10


LARGE = orders.DRAWN + 7  # rows whose order is not drawn as an array


def test_a_large_table_is_complete_and_the_same_for_any_number_of_ranks() -> None:
    whole = np.array([draw.row for draw in draws(LARGE, 1, epoch=2)[0]])
    assert np.array_equal(np.sort(whole), np.arange(LARGE))
    for rank in (0, 2):
        sampler = ResumableSampler(LARGE, shuffle=True, seed=5, rank=rank, world_size=3)
        assert [draw.row for draw in islice(sampler, 3000)] != whole[rank:9000:3].tolist()  # of another epoch
        sampler.set_epoch(2)
        part = list(sampler)
        assert len(part) == len(sampler)
        assert [draw.row for draw in part if draw.counted] == whole[rank::3].tolist()


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 3)])
def test_a_large_table_goes_on_where_it_stopped(before: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "DRAWN", 1000)
    whole = [d for step in zip_longest(*draws(10_007, before)) for d in step if d and d.counted]
    rest = [d for step in zip_longest(*draws(10_007, after, start=6000)) for d in step if d and d.counted]
    assert rest == whole[6000:]
    assert {draw.row for draw in whole} == {*range(10_007)}


def test_a_billion_rows_take_no_memory() -> None:
    """Neither the first samples nor the last ones of an epoch need an array of all."""
    rows = 10**9
    tracemalloc.start()
    sampler = ResumableSampler(rows, shuffle=True, seed=0, rank=1, world_size=2)
    first = [draw.row for draw in islice(sampler, 64)]
    sampler.resume(3, rows - 4)
    last = list(iter(sampler))  # a list of the sampler itself would reserve memory for its length
    in_order = ResumableSampler(rows, shuffle=False, seed=0, rank=0, world_size=2)
    assert [draw.row for draw in islice(in_order, 2)] == [0, 2]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len({*first}) == 64
    assert max(first) > rows / 2 > min(first)
    assert [(draw.epoch, draw.counted) for draw in last] == [(3, True)] * 2
    assert peak < 4 << 20
