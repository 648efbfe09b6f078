"""The records of whole batches: a fast path for those in which the row-by-row reader would find no problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from robusttune.data.sources.base import SCHEMA
from robusttune.data.sources.image_arrays import image_column
from robusttune.data.sources.label_arrays import NAMES, LabelArrays
from robusttune.data.sources.rows import Row
from robusttune.data.sources.table_records import RecordReader
from robusttune.data.sources.text_arrays import UnusualCellsError, Update, filled_texts
from robusttune.data.sources.text_template import TextTemplate

TEXT = pa.string()


class ColumnRecords:
    """The conversion of batches of rows to records, column by column.

    Args:
        reader: Conversion of single rows. Its counts also include the rows that are converted here.
    """

    def __init__(self, reader: RecordReader) -> None:
        self.reader = reader
        self._labels = LabelArrays(reader.labels)

    def records(self, number: int, columns: Mapping[str, pa.Array], rows: int) -> pa.RecordBatch | None:
        """Return the records of a batch, or None if `RecordReader` must convert its rows.

        Args:
            number: Number of the first row, from 1.
            columns: Columns of the batch by name.
            rows: Number of rows.
        """
        updates: list[Update] = []
        plain = {name: _decoded(cells) for name, cells in columns.items()}
        try:
            # Each column in the order of `RecordReader.record`.
            ids = self._ids(number, plain, rows, updates)
            images = self._images(plain, rows, updates)
            texts = self._texts(plain, rows, updates)
            labels = self._labels.read(plain, rows, updates)
        except (UnusualCellsError, pa.ArrowException):  # or a type that Arrow has no function for
            return None
        for update in updates:
            update()
        return pa.record_batch([ids, images, texts, labels, pa.nulls(rows, NAMES)], schema=SCHEMA)

    def _ids(self, number: int, columns: Mapping[str, pa.Array], rows: int, updates: list[Update]) -> pa.Array:
        column = self.reader.id_column
        if column is None:
            return pa.array(range(number, number + rows), pa.int64()).cast(TEXT)
        ids = self._filled(column, columns, rows, updates)
        if ids.null_count:
            raise UnusualCellsError
        return ids

    def _images(self, columns: Mapping[str, pa.Array], rows: int, updates: list[Update]) -> pa.Array:
        images = self.reader.images
        if len(images.columns) > 1:
            raise UnusualCellsError
        found = [column for column in images.columns if column in columns]
        return image_column(columns[found[0]], found[0], images, updates) if found else pa.nulls(rows, TEXT)

    def _texts(self, columns: Mapping[str, pa.Array], rows: int, updates: list[Update]) -> pa.Array:
        text = self.reader.text
        if isinstance(text, TextTemplate):
            return text.fill_columns(lambda column: self._filled(column, columns, rows, updates))
        return self._filled(text, columns, rows, updates)

    def _filled(
        self, column: str | None, columns: Mapping[str, pa.Array], rows: int, updates: list[Update]
    ) -> pa.Array:
        if column is None or column not in columns:
            return pa.nulls(rows, TEXT)
        return filled_texts(columns[column], column, self.reader.blanks, updates)


def columns_of(rows: Sequence[Row]) -> dict[str, pa.Array] | None:
    """Return the columns of rows whose cells have one type for each column, or None for others.

    Example:
        >>> columns_of([Row("line 1", {"n": 1}), Row("line 2", {"n": 2})])["n"].to_pylist()
        [1, 2]
    """
    names = rows[0].cells.keys()
    if any(row.cells.keys() != names for row in rows):
        return None
    columns = {name: _array([row.cells[name] for row in rows]) for name in names}
    return None if any(cells is None for cells in columns.values()) else columns


def _array(cells: list[Any]) -> pa.Array | None:
    try:
        found = pa.array(cells)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):  # ValueError: a text that is not Unicode
        return None
    # Arrow turns whole numbers into decimal ones, and texts into bytes, where a column has both.
    kind = found.type.value_type if pa.types.is_list(found.type) else found.type
    is_plain = any(is_kind(kind) for is_kind in (pa.types.is_null, pa.types.is_string, pa.types.is_boolean))
    return found if is_plain or pa.types.is_integer(kind) else None


def _decoded(cells: pa.Array) -> pa.Array:
    return cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells
