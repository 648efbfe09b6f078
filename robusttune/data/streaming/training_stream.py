"""The interface of streams of training samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from robusttune.data.images import ImageReader


class StreamedRow(NamedTuple):
    """A row of a stream.

    Attributes:
        shard: Number of its file, from 0.
        row: Number of the row in the file, from 0.
        cells: Cells by column.
    """

    shard: int
    row: int
    cells: Mapping[str, Any]


class TrainingStream(ABC):
    """The training samples of a source, in files that are read one after the other, each from its start.

    Args:
        buffer: Number of samples that a loader process holds in memory to shuffle them, at least 1.
    """

    def __init__(self, buffer: int) -> None:
        self.buffer = buffer

    @property
    @abstractmethod
    def place(self) -> str:
        """Return the name of the training split, for messages."""

    @property
    @abstractmethod
    def has_both(self) -> bool:
        """Return whether samples may have an image and a text."""

    @property
    @abstractmethod
    def class_names(self) -> list[str] | None:
        """Return the names of all classes in label order, or None if they are unknown."""

    @property
    @abstractmethod
    def shards(self) -> int:
        """Return the number of files, at least 1."""

    @abstractmethod
    def rows(self, shard: int) -> Iterator[Mapping[str, Any]]:
        """Yield the cells of the rows of a file by column, always in the same order.

        Args:
            shard: Number of the file, from 0.

        Raises:
            RobustTuneError: The file cannot be read.
        """

    @abstractmethod
    def records(self, rows: Sequence[StreamedRow]) -> tuple[pa.Table, ImageReader]:
        """Convert rows to records.

        Args:
            rows: Rows of any files.

        Returns:
            Table of records with the columns of `SCHEMA`, whose ids are unique in the stream, and the reader of the
            images that they name.

        Raises:
            RobustTuneError: Rows have cells that cannot be used.
        """
