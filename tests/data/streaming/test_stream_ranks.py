"""Streams that several processes of a run share: equal steps, each sample once, one state, one error."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from fakes import grouped, tiny_image_encoder, tiny_text_encoder
from tars import streamed, write_tar
from two_ranks import in_two_ranks

from robusttune.data import ImageTextDataModule
from robusttune.data.loaders import Processes
from robusttune.data.streaming.loader import StreamLoader
from robusttune.data.streaming.training import stream_loader
from robusttune.data.workers import Workers
from robusttune.errors import RobustTuneError
from robusttune.types import Batch

Summary = list[tuple[list[str], list[bool]]]


@pytest.fixture
def loader(tmp_path: Path, text_folder: Path) -> Callable[..., StreamLoader]:
    """Return a function from sizes of files to the loader of a rank."""

    def make(sizes: list[int], rank: int, workers: int = 0) -> StreamLoader:
        folder = tmp_path / str(rank)
        folder.mkdir(exist_ok=True)
        settings = grouped(batch_size=4, workers=workers)
        encoders = tiny_image_encoder(), tiny_text_encoder(text_folder)
        data = ImageTextDataModule(streamed(folder, sizes), *encoders, **settings)
        stream = data.source.training_stream
        assert stream is not None
        processes = Processes(rank, 2, 2)
        return stream_loader(stream, data.preprocessing, None, data.facts, data.loaders, processes, lambda: 1)

    return make


def summary(batches: Any) -> Summary:
    found: list[Batch] = [*batches]
    return [(batch.sample_id, batch.counted.tolist()) for batch in found]


SHAPES = {"uneven files": [30, 3, 3], "one file": [9], "even files": [5, 5, 5, 5], "an empty file": [0, 30, 3]}


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_both_take_as_many_steps_and_each_sample_counts_once(
    loader: Callable[..., StreamLoader], sizes: list[int]
) -> None:
    ranks = in_two_ranks(lambda rank: summary(loader(sizes, rank)))
    assert len(ranks[0]) == len(ranks[1])
    counted = [
        sample_id
        for batches in ranks
        for ids, flags in batches
        for sample_id, flag in zip(ids, flags, strict=True)
        if flag
    ]
    assert sorted(counted) == sorted(f"{shard}-{row}" for shard, size in enumerate(sizes) for row in range(size))
    assert all(len(batch) <= 4 for batches in ranks for batch, _ in batches)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_both_go_on_from_the_state_of_one(loader: Callable[..., StreamLoader], workers: int, steps: int) -> None:
    """The Trainer has fetched a batch more than it has used; in the last steps, one rank has no samples left."""
    sizes = [21, 2, 9, 4, 1]

    def run(rank: int) -> tuple[Summary, Summary]:
        whole, resumed = loader(sizes, rank, workers), loader(sizes, rank, workers)
        batches = iter(whole)
        found = summary(islice(batches, steps + 1))
        for _ in range(steps):
            whole.used()
        state = whole.state_dict()
        found += summary(batches)
        resumed.load_state_dict(state)
        return found[steps:], summary(resumed)

    for expected, rest in in_two_ranks(run, workers > 0):
        assert len(expected) > 0
        assert rest == expected


def test_a_state_of_other_processes_is_refused(loader: Callable[..., StreamLoader]) -> None:
    def run(rank: int) -> str:
        first, other = loader([8, 8, 8, 8], rank, 2), loader([8, 8, 8, 8], rank, 1)
        next(iter(first))
        first.used()
        with pytest.raises(RobustTuneError) as error:
            other.load_state_dict(first.state_dict())
        return str(error.value)

    expected = (
        "of 8 samples a step and 4 loader processes, not 8 and 2: resume with the same batch_size and devices, and"
    )
    messages = in_two_ranks(run, workers=True)
    assert all(f"{expected} data.loader.workers 2" in message for message in messages)


def test_a_state_of_another_order_is_refused(loader: Callable[..., StreamLoader], tmp_path: Path) -> None:
    first = loader([8, 8, 8], 0)
    first.batches.world_size = 1
    state = StreamLoader(first.batches, Workers(0, 2), lambda: 1)
    next(iter(state))
    state.used()
    other = loader([8, 8, 8], 0)
    other.batches.world_size, other.batches.stream.buffer = 1, 5
    with pytest.raises(RobustTuneError, match="of 3 files, data.source.stream.buffer 7 and data.seed 0, not 3 files"):
        StreamLoader(other.batches, Workers(0, 2), lambda: 1).load_state_dict(state.state_dict())


def test_all_ranks_have_as_many_workers(loader: Callable[..., StreamLoader]) -> None:
    found = in_two_ranks(lambda rank: loader([8, 8, 8, 8], rank, 1 + rank).num_workers)
    assert found == [1, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_one_ends_both(loader: Callable[..., StreamLoader], tmp_path: Path, workers: int) -> None:
    def run(rank: int) -> tuple[str, bool]:
        made = loader([6, 6], rank, workers)
        if rank == 1:
            for name in ("train-00.tar", "train-01.tar"):
                write_tar(tmp_path / "1" / name, [{"cls": b"9", "txt": b"soup"}])
        try:
            summary(made)
        except RobustTuneError as error:
            return str(error), error.reported_elsewhere
        raise AssertionError("a label is unknown")

    errors = in_two_ranks(run, workers > 0)
    assert errors[0][0] == errors[1][0]
    assert "'9' of" in errors[0][0]
    assert "or list all classes in data.source.stream.classes" in errors[0][0]
    assert [elsewhere for _, elsewhere in errors] == [True, False]
