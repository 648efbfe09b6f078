"""Batches of streamed samples, made by loader processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from robusttune.corruption.conditions import Conditions
from robusttune.corruption.missing import Missing, lost_at_random
from robusttune.data.dataset import Collate
from robusttune.data.labels import encode_labels
from robusttune.data.preprocessed import Preprocessing
from robusttune.data.rows import Rows
from robusttune.data.streaming.order import Part, Position, samples
from robusttune.data.streaming.training_stream import StreamedRow, TrainingStream
from robusttune.data.workers import share
from robusttune.errors import RobustTuneError
from robusttune.types import Batch, Draw, Facts

UNKNOWN = "correct it, or list all classes in data.source.stream.classes"


class Delivery(NamedTuple):
    """What a loader process sends to its main process.

    Attributes:
        batch: Batch; None if there is a problem.
        part: Number of the part among those of the main process.
        position: Position in the part behind the batch.
        problem: Error message, empty if there is a batch.
    """

    batch: Batch | None
    part: int
    position: Position
    problem: str = ""


class StreamedBatches(IterableDataset[Delivery]):
    """The batches of one process of a run, each from one of its parts of the epoch in turn.

    Everything that is random depends on seed, epoch and sample, as for samples of a table; only noise that takes the
    text of another sample takes it from the same batch.

    Args:
        stream: Stream of the samples.
        preprocessing: Steps from records to inputs of the encoders.
        facts: Class names and kind of task.
        missing: Missing-modality protocol with a rate, or None.
        batch_size: Number of samples of a batch.
        rank: Number of this process, from 0.
        world_size: Number of processes.

    Attributes:
        epoch: Epoch of the next iteration.
        positions: Positions of this process's parts, one for each loader process.
        first: Part that the first batch is from.
    """

    def __init__(
        self,
        stream: TrainingStream,
        preprocessing: Preprocessing,
        facts: Facts,
        missing: Missing | None,
        batch_size: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.stream = stream
        self.preprocessing = preprocessing
        self.facts = facts
        self.missing = missing
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.positions: list[Position] = [Position()]
        self.first = 0

    def __iter__(self) -> Iterator[Delivery]:
        worker = get_worker_info()
        own = self.first if worker is None else (self.first + worker.id) % len(self.positions)
        position = self.positions[own]
        number, parts = own * self.world_size + self.rank, len(self.positions) * self.world_size
        rest = samples(self.stream, Part(self.epoch, self.preprocessing.seed, number, parts), position)
        try:
            while found := [*islice(rest, self.batch_size)]:
                position = found[-1][1]
                yield Delivery(share(self.batch([row for row, _ in found])), own, position)
        except RobustTuneError as error:  # The main process raises it, on all ranks.
            yield Delivery(None, own, position, str(error))

    def batch(self, rows: Sequence[StreamedRow]) -> Batch:
        """Return the batch of some rows.

        Raises:
            RobustTuneError: Rows have cells that cannot be used, or labels that are unknown.
        """
        table, images = self.stream.records(rows)
        records = Rows(table)
        if self.missing is not None:
            records = records.hide(lost_at_random(table["id"], self.missing))
        labels = encode_labels(records, self.facts.class_names, self.facts.multilabel, "train", UNKNOWN)
        data = self.preprocessing.dataset(records, images, labels, "train", "train", Conditions(["complete"]))
        drawn = [data[Draw(self.epoch, row, True)] for row in range(len(records))]
        return Collate(data.images, data.texts, self.facts, "train")(drawn)

    def filler(self) -> Batch:
        """Return a batch that is not counted, for a process that has no more samples while others have some.

        Raises:
            RobustTuneError: A file cannot be read.
        """
        rows = (
            StreamedRow(shard, 0, cells) for shard in range(self.stream.shards) for cells in self.stream.rows(shard)
        )
        return replace(self.batch([next(rows)]), counted=torch.zeros(1, dtype=torch.bool))
