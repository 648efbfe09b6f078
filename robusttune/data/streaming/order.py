"""The order of streamed samples: the files of an epoch, and the samples of a group that is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from robusttune.data.orders import shuffled
from robusttune.data.streaming.training_stream import StreamedRow, TrainingStream


class Part(NamedTuple):
    """The part of an epoch that one loader process reads.

    Attributes:
        epoch: Epoch, from 0.
        seed: Seed of the order.
        number: Number of the part, from 0.
        parts: Number of parts.
    """

    epoch: int
    seed: int
    number: int
    parts: int


class Position(NamedTuple):
    """A position in a part: a group of samples that are shuffled together, and how many of them were taken.

    Attributes:
        group: Number of the group, from 0.
        file: Place of the file, among those of the part, in which the group begins.
        row: Row of the file at which the group begins.
        taken: Number of samples of the group that were taken.
    """

    group: int = 0
    file: int = 0
    row: int = 0
    taken: int = 0


def samples(stream: TrainingStream, part: Part, start: Position) -> Iterator[tuple[StreamedRow, Position]]:
    """Yield the samples of a part from a position on, each with the position behind it.

    All parts together have each sample of the stream once. The files are dealt to the parts in a random order. If
    there are fewer files than parts, several parts read the same file, and each takes every n-th of its rows.

    Args:
        stream: Stream of the samples.
        part: Part to read.
        start: Position of the first sample.
    """
    rows, group, taken = _rows(stream, part, start), start.group, start.taken
    while True:
        held = [*islice(rows, stream.buffer)]
        if not held:
            return
        file, first = held[0][0], held[0][1].row
        order = np.random.default_rng([part.seed, part.epoch, part.number, group]).permutation(len(held))
        for place in range(taken, len(held)):
            yield held[order[place]][1], Position(group, file, first, place + 1)
        group, taken = group + 1, 0
        del held  # before the next group is read


def _rows(stream: TrainingStream, part: Part, start: Position) -> Iterator[tuple[int, StreamedRow]]:
    """Yield the rows of a part in the order of its files, from the start of a group on, each with its file's place."""
    shares = -(-part.parts // stream.shards)  # of a file, each of which goes to a part
    order = shuffled(stream.shards * shares, part.seed, part.epoch)
    mine = order(np.arange(part.number, stream.shards * shares, part.parts)).rows
    for place in range(start.file, len(mine)):
        shard, share = divmod(int(mine[place]), shares)
        for row, cells in enumerate(stream.rows(shard)):
            if row % shares == share and (place > start.file or row >= start.row):
                yield place, StreamedRow(shard, row, cells)
