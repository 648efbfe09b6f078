"""The data types of table files: one row, all rows with the column names, and the settings of a reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa

SLICE = 4096  # rows that are converted to Python objects together


class Row(NamedTuple):
    """A row of a table file.

    Attributes:
        where: Location in the file for messages, such as ``line 7``.
        cells: Values of the requested columns, by column name. Columns that the row lacks are not in it.

    Example:
        >>> Row("line 7", {"text": "soup"}).cells["text"]
        'soup'
    """

    where: str
    cells: Mapping[str, Any]


class RowBatch(NamedTuple):
    """Consecutive rows of a table file that is stored in columns.

    Attributes:
        columns: Requested columns of the rows, without those of embedded images.
        first: Number of the first row in the file, from 1.
        images: Iterators over the cells of columns of embedded images, by column name. They go on from batch to batch.
        reading: Context that turns the errors of a damaged file into one sentence.
        file: Start of the locations of rows, such as ``train-0.parquet, `` in a table of several files.

    Example:
        >>> [row.where for row in RowBatch(pa.record_batch({"text": ["soup", "pie"]}), 7).rows()]
        ['row 7', 'row 8']
    """

    columns: pa.RecordBatch
    first: int
    images: Mapping[str, Iterator[Any]] = MappingProxyType({})
    reading: Callable[[], AbstractContextManager[None]] = nullcontext
    file: str = ""

    def place(self, number: int) -> str:
        """Return the location of a row for messages; ``number`` is its number in the batch, from 0."""
        return f"{self.file}row {self.first + number}"

    def arrays(self) -> dict[str, pa.Array] | None:
        """Return the columns by name, or None if rows also have embedded images."""
        return None if self.images else dict(zip(self.columns.schema.names, self.columns.columns, strict=True))

    def rows(self) -> Iterator[Row]:
        """Yield the rows."""
        with self.reading():
            for start in range(0, self.columns.num_rows, SLICE):
                part = self.columns.slice(start, SLICE)
                cells: list[dict[str, Any]] = part.to_pylist() if part.num_columns else [{}] * part.num_rows
                for number, row in enumerate(cells, start):
                    images = {name: next(column) for name, column in self.images.items()}
                    yield Row(self.place(number), row | images)


class Rows(NamedTuple):
    """The rows of a table file, which are read while they are iterated over, once.

    Attributes:
        rows: Iterator over the rows that can be parsed, in order.
        columns: Names of all columns of the file, also those that were not requested. The list is complete when the
            last row has been read.
        decision: What was detected, such as ``CSV with the delimiter ';'``. It is empty where the file's ending says
            everything.
        batches: Iterator over the same rows in columns, if the file is stored so; use either this one or ``rows``.
    """

    rows: Iterator[Row]
    columns: list[str]
    decision: str = ""
    batches: Iterator[RowBatch] | None = None


@dataclass(frozen=True)
class TableOptions:
    """Settings that override what is detected in a table file.

    Attributes:
        delimiter: Character between the cells of CSV and TSV files, or None to detect it.
        sheet: Name of the sheet of Excel files, or None to choose it.
        split: Name of the split that is read. An Excel sheet of this name is chosen.
    """

    delimiter: str | None = None
    sheet: str | None = None
    split: str = ""
