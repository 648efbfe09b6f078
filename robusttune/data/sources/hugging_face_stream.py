"""Training samples of data sets of the `datasets` library as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from robusttune.data.images import ImageReader
from robusttune.data.sources.base import to_table
from robusttune.data.sources.files import read_text
from robusttune.data.sources.hugging_face_images import CellImages, row_of
from robusttune.data.sources.hugging_face_records import names_of
from robusttune.data.streaming.training_stream import StreamedRow, TrainingStream
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path

if TYPE_CHECKING:
    from robusttune.data.sources.hugging_face import HuggingFace

ROWS = 16  # rows that are read together
ID = "__id__"  # column of ids if the data set has none


@dataclass(frozen=True)
class Stream:
    """Settings of a stream of training samples.

    Args:
        buffer: Number of samples that each loader process holds in memory to shuffle them, at least 1. In each epoch,
            the files are in a new order, and the samples of consecutive files are shuffled in groups of this size.
        classes: Text file with the names of all classes, one in each line, in label order. By default, they are those
            of the data set's `ClassLabel` feature, or else those of the validation samples.

    Raises:
        RobustTuneError: ``buffer`` is too small.

    Example:
        >>> Stream(buffer=5000).classes is None
        True
    """

    buffer: int = 1000
    classes: str | None = None

    def __post_init__(self) -> None:
        if self.buffer < 1:
            raise RobustTuneError(f"data.source.stream.buffer is {self.buffer}: give at least 1")


class HuggingFaceStream(TrainingStream):
    """The training samples of a data set, file by file.

    Args:
        source: Source of the samples.
        settings: Settings of the stream.

    Raises:
        RobustTuneError: The data set has no training split, or lacks a column.
    """

    def __init__(self, source: HuggingFace, settings: Stream) -> None:
        super().__init__(settings.buffer)
        self.source = source
        self.settings = settings

    @property
    def place(self) -> str:
        """Return the name of the training split, for messages."""
        return f"{self.source.path}, {self.source.splits.get('train')}"

    @property
    def has_both(self) -> bool:
        """Return whether samples may have an image and a text."""
        return bool(self.source.image_columns) and self.source.text_column is not None

    @cached_property
    def class_names(self) -> list[str] | None:
        """Return the names of all classes in label order, or None if the data set does not know them."""
        path = self.settings.classes
        if path is None:
            return names_of((self._data.features or {}).get(self.source.label_column))
        names = [line.strip() for line in read_text(user_path(path)).splitlines() if line.strip()]
        if len({*names}) < len(names):
            raise RobustTuneError(f"{path} has a class twice: name each class once")
        return names

    @property
    def shards(self) -> int:
        """Return the number of files."""
        return int(self._data.num_shards)

    def rows(self, shard: int) -> Iterator[Mapping[str, Any]]:
        """Yield the cells of the rows of a file by column, in order.

        Raises:
            RobustTuneError: The file cannot be read.
        """
        try:
            # In a loader process, its other iterator would deal the rows to the processes once more.
            for batch in self._data.shard(self.shards, shard).iter(ROWS):
                for cells in zip(*batch.values(), strict=True):
                    yield dict(zip(batch, cells, strict=True))
        except Exception as error:  # network, file system and parsers raise many types
            reason = " ".join(str(error).split()).rstrip(".")
            raise RobustTuneError(
                f"file {shard} of {self.shards} of {self.place} cannot be read ({reason:.240}): repair it, or try "
                "again with --resume auto"
            ) from None

    def records(self, rows: Sequence[StreamedRow]) -> tuple[pa.Table, ImageReader]:
        """Convert rows to records, see `TrainingStream.records`.

        Raises:
            RobustTuneError: Rows have cells that cannot be used. The message names the file and the row.
        """
        columns = {name: [row.cells.get(name) for row in rows] for name in self.source.used_columns}
        reader = self.source.row_reader(self.place, "train", self._data.features or {})
        reader = replace(reader, place=lambda number: f"row {rows[number].row} of file {rows[number].shard}")
        if reader.id_column is None:
            columns[ID], reader = [f"{row.shard}-{row.row}" for row in rows], replace(reader, id_column=ID)
        table = pa.table(columns)
        records = to_table(reader.records(table))
        reader.bad.refuse(len(rows))
        images = CellImages(
            lambda name: f"{reader.place(row_of(name))} of {self.place}",
            self.source.image_columns,
            lambda split, row, column: table[column][row].as_py(),
            self.source.remote,
        )
        return records, images

    @cached_property
    def _data(self) -> Any:
        """Return the training split as `datasets.IterableDataset`, once its columns are checked."""
        name = self.source.splits.get("train")
        if name is None:
            raise RobustTuneError(f"{self.source.path} has no training split: correct data.source.split_names")
        data = self.source.data.stream(name)
        found = [*next(iter(data), {})] if data.features is None else data.column_names
        self.source.check_columns(found, data.features, self.place, labelled=True)
        return data
