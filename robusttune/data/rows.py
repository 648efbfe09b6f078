"""Selected rows of a table of records, which may be a memory-mapped file: no cell is copied before it is read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from robusttune.data.class_indices import ClassIndices
from robusttune.data.row_images import row_images

CHUNK = 1 << 16  # rows of the table that are read together
MODALITIES = ("image", "text")


class Labels(NamedTuple):
    """The labels of N rows.

    Attributes:
        names: Names of the classes that ``classes`` refers to.
        classes: Classes of each row.
        known: Whether each row is labelled, shape (N,), bool. A labelled row of multi-label data may have no class.
    """

    names: list[str]
    classes: ClassIndices
    known: NDArray[np.bool_]


class Columns:
    """The columns of a table, and what is computed from them once.

    Args:
        table: Table of records, with columns of `SCHEMA`.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.by_name = dict(zip(table.column_names, table.columns, strict=True))

    @cached_property
    def labels(self) -> Labels:
        """The labels of all rows; the classes are numbered in the order of their first appearance."""
        column, numbers, filled = self.by_name["labels"], dict[str, int](), 0
        counts = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
        flat = np.empty(counts.sum(), dtype=np.int32)
        for start in range(0, len(column), CHUNK):
            for part in pc.list_flatten(column.slice(start, CHUNK)).dictionary_encode().chunks:
                names = part.dictionary.to_pylist()
                here = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int32)
                flat[filled : filled + len(part)] = here[np.asarray(part.indices)]
                filled += len(part)
        return Labels([*numbers], ClassIndices.from_counts(flat, counts), np.asarray(column.is_valid()))


class Rows:
    """Rows of a table of records, without a copy of the table: their numbers, and the modalities that a mask hides.

    Args:
        table: Table of records, with columns of `SCHEMA`.

    Example:
        >>> table = pa.table({"image": ["a.jpg", None, "c.jpg"], "text": ["a pie", "a soup", None]})
        >>> rows = Rows(table).select(np.array([0, 1])).hide(np.array([[True, False], [False, False]]))
        >>> rows.table().to_pydict()
        {'image': [None, None], 'text': ['a pie', 'a soup']}
    """

    def __init__(self, table: pa.Table) -> None:
        self._columns = Columns(table)
        self._index: NDArray[np.integer] | None = None
        self._hidden: NDArray[np.bool_] | None = None
        self._present: dict[str, NDArray[np.bool_]] = {}

    def __len__(self) -> int:
        return len(self._columns.table) if self._index is None else len(self._index)

    @property
    def index(self) -> NDArray[np.integer]:
        """Return the row number in the table of each row, shape (N,), ascending."""
        return np.arange(len(self)) if self._index is None else self._index

    def select(self, rows: NDArray[np.integer]) -> Rows:
        """Return some of the rows.

        Args:
            rows: Row numbers, ascending, shape (M,).
        """
        size = np.int32 if len(self._columns.table) < 2**31 else np.int64
        index = rows if self._index is None else self._index[rows]
        return self._with(index.astype(size), None if self._hidden is None else self._hidden[rows])

    def hide(self, hidden: NDArray[np.bool_]) -> Rows:
        """Return the rows without some modalities.

        Args:
            hidden: Whether the image (column 0) and the text (column 1) of each row are hidden, shape (N, 2), bool.
        """
        return self._with(self._index, hidden if self._hidden is None else self._hidden | hidden)

    def present(self, modality: str) -> NDArray[np.bool_]:
        """Return which rows have a modality, shape (N,), bool.

        Args:
            modality: ``image`` or ``text``.
        """
        if modality not in self._present:
            found = np.asarray(self._columns.by_name[modality].is_valid())
            found = found if self._index is None else found[self._index]
            if self._hidden is not None:
                found = found & ~self._hidden[:, MODALITIES.index(modality)]
            self._present[modality] = found
        return self._present[modality]

    def value(self, column: str, row: int) -> Any:
        """Return the value of a cell, or None where it is missing or hidden."""
        if self._hidden is not None and column in MODALITIES and self._hidden[row, MODALITIES.index(column)]:
            return None
        return self._columns.by_name[column][row if self._index is None else int(self._index[row])].as_py()

    def images(self, row: int) -> list[str]:
        """Return the names of the images of a row, none if it has no image."""
        first = self.value("image", row)
        return [] if first is None else [first, *(self.value("more_images", row) or [])]

    @property
    def labels(self) -> Labels:
        """Return the labels of the rows; the classes are numbered in the order of their appearance in the table."""
        whole = self._columns.labels
        if self._index is None:
            return whole
        return Labels(whole.names, whole.classes.select(self._index), whole.known[self._index])

    @property
    def most_images(self) -> int:
        """Return the largest number of images of a row, at least 1."""
        return 1 + int(self._more_images().max(initial=0))

    @property
    def image_count(self) -> int:
        """Return the number of images of all rows."""
        present = self.present("image")
        return int(present.sum()) + int(self._more_images()[present].sum())

    def all_images(self) -> Iterator[str]:
        """Yield the names of the images of all rows, in order."""
        if self.most_images == 1:
            for part in self.chunks("image"):
                yield from part["image"].drop_null().to_pylist()
            return
        for part in self.chunks("image", "more_images"):
            yield from (name for names in row_images(part) for name in names)

    def _more_images(self) -> NDArray[np.int32]:
        """Return the number of images after the first of each row, shape (N,), int32."""
        column = self._columns.by_name["more_images"]
        if column.null_count == len(column):
            return np.zeros(len(self), dtype=np.int32)
        counts = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
        return counts if self._index is None else counts[self._index]

    def chunks(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the rows in their order as tables of up to `CHUNK` rows.

        Args:
            columns: Names of the columns, by default all.
        """
        table = self._columns.table.select(list(columns)) if columns else self._columns.table
        first = 0
        for start in range(0, len(table), CHUNK):
            part, last = table.slice(start, CHUNK), min(start + CHUNK, len(table))
            if self._index is not None:  # A take of the whole table would copy all of it.
                last = int(np.searchsorted(self._index, last))
                part = part.take(pa.array(self._index[first:last] - start))
            if len(part):
                yield part if self._hidden is None else _without(part, self._hidden[first:last])
            first = last

    def table(self, *columns: str) -> pa.Table:
        """Return the rows as a table: a copy in memory, unless it is the whole table as it is.

        Args:
            columns: Names of the columns, by default all.
        """
        table = self._columns.table.select(list(columns)) if columns else self._columns.table
        if self._index is None and self._hidden is None:
            return table
        return pa.concat_tables([table.slice(0, 0), *self.chunks(*columns)]).combine_chunks()

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the values of one column, see `table`."""
        return self.table(name)[name]

    def _with(self, index: NDArray[np.integer] | None, hidden: NDArray[np.bool_] | None) -> Rows:
        """Return other rows of the same table."""
        other = Rows.__new__(Rows)
        other._columns, other._index, other._hidden, other._present = self._columns, index, hidden, {}
        return other


def _without(table: pa.Table, hidden: NDArray[np.bool_]) -> pa.Table:
    """Return the table with null in place of the modalities that are hidden, shape (N, 2)."""
    for i, modality in enumerate(MODALITIES):
        if modality in table.column_names:
            place = table.schema.get_field_index(modality)
            kept = pc.if_else(pa.array(~hidden[:, i]), table[modality], pa.scalar(None, pa.string()))
            table = table.set_column(place, table.schema.field(place), kept)
    return table
