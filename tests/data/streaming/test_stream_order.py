"""The order of streamed samples: complete, new in each epoch, resumable anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from robusttune.data.images import ImageReader
from robusttune.data.streaming.order import Part, Position, samples
from robusttune.data.streaming.training_stream import StreamedRow, TrainingStream


class Counted(TrainingStream):
    """A stream of files with the given numbers of rows, which counts the rows that are read."""

    place, class_names, has_both = "counted", None, True

    def __init__(self, sizes: Sequence[int], buffer: int) -> None:
        super().__init__(buffer)
        self.sizes = sizes
        self.read = 0

    @property
    def shards(self) -> int:
        return len(self.sizes)

    def rows(self, shard: int) -> Iterator[Mapping[str, Any]]:
        for _ in range(self.sizes[shard]):
            self.read += 1
            yield {}

    def records(self, rows: Sequence[StreamedRow]) -> tuple[pa.Table, ImageReader]:
        raise NotImplementedError


def drawn(stream: TrainingStream, part: Part, start: Position = Position()) -> list[tuple[int, int]]:  # noqa: B008
    return [(row.shard, row.row) for row, _ in samples(stream, part, start)]


SIZES = [5, 0, 3, 11, 2]


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 7, 12])
@pytest.mark.parametrize("buffer", [1, 4, 100])
def test_all_parts_together_have_each_sample_once(parts: int, buffer: int) -> None:
    stream = Counted(SIZES, buffer)
    everything = [row for number in range(parts) for row in drawn(stream, Part(3, 0, number, parts))]
    assert sorted(everything) == [(shard, row) for shard, size in enumerate(SIZES) for row in range(size)]


def test_each_epoch_and_seed_has_an_order_of_its_own() -> None:
    stream = Counted([50, 50, 50], buffer=40)
    orders = [drawn(stream, Part(epoch, seed, 0, 1)) for epoch, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({*map(tuple, orders)}) == 3
    assert orders[0] == drawn(stream, Part(0, 0, 0, 1))
    assert len({row[0] for row in orders[0][:40]}) < 3  # files follow each other
    assert orders[0][:40] != sorted(orders[0][:40])  # and samples of a group are shuffled


def test_a_group_spans_files() -> None:
    shards = [row[0] for row in drawn(Counted([4] * 25, buffer=100), Part(0, 0, 0, 1))]
    assert len({*shards[:20]}) > 10


@pytest.mark.parametrize("parts", [1, 2, 9])
@pytest.mark.parametrize("buffer", [1, 4, 100])
def test_goes_on_behind_any_sample(parts: int, buffer: int) -> None:
    for number in range(parts):
        part = Part(2, 1, number, parts)
        whole = [*samples(Counted(SIZES, buffer), part, Position())]
        rows = [(row.shard, row.row) for row, _ in whole]
        for taken, (_, position) in enumerate(whole, start=1):
            assert drawn(Counted(SIZES, buffer), part, position) == rows[taken:]


def test_files_before_the_position_are_not_read_again() -> None:
    whole = [*samples(Counted([100] * 10, buffer=50), Part(0, 0, 0, 1), Position())]
    stream = Counted([100] * 10, buffer=50)
    next(samples(stream, Part(0, 0, 0, 1), whole[820][1]))
    assert stream.read <= 100
