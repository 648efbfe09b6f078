"""The records of a table in batches. Batches with a problem are converted row by row, all others column by column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import CHUNK, to_batch
from robusttune.data.sources.column_records import ColumnRecords, columns_of
from robusttune.data.sources.repeated_ids import repeated
from robusttune.data.sources.rows import Row, Rows
from robusttune.data.sources.table_records import OpenedTable

FEW = 256  # rows that are converted one by one, since that is quicker than by columns


class TableBatches:
    """The records of a table, read while they are iterated over, once.

    Problems of rows that can be parsed and of others are added to one collection, in the order of the rows.

    Args:
        opened: Opened table.

    Attributes:
        total: Number of rows so far, including those that cannot be parsed.
        unparsed_rows: Number of rows so far that cannot be parsed.
        has_packs: Flag, True if columns of embedded images were copied to packs, see `robusttune.data.packs`.
    """

    def __init__(self, opened: OpenedTable) -> None:
        self.total = self.unparsed_rows = 0
        self.has_packs = False
        self._found = opened.found
        self._reader = opened.reader
        self._unparsed = opened.unparsed
        self._columns = ColumnRecords(opened.reader)
        self._next = 1  # number of the next row that can be parsed

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        if self._found.batches is None:
            yield from self._from_rows()
            return
        for batch in self._found.batches:
            self.has_packs = self.has_packs or bool(batch.images)
            yield self._converted(len(batch.columns), batch.arrays, batch.rows)

    def _from_rows(self) -> Iterator[pa.RecordBatch]:
        """Yield the records of a file that is read row by row."""
        group: list[Row] = []

        def convert() -> pa.RecordBatch:
            return self._converted(len(group), lambda: columns_of(group), lambda: group)

        for row in self._found.rows:
            if self._unparsed.found or len(group) == CHUNK:
                if group:  # its problems come before those of the rows that cannot be parsed
                    yield convert()
                    group = []
                self._count_unparsed()
            group.append(row)
        if group:
            yield convert()
        self._count_unparsed()

    def _converted(
        self, rows: int, columns: Callable[[], Mapping[str, pa.Array] | None], by_row: Callable[[], Iterable[Row]]
    ) -> pa.RecordBatch:
        """Return the records of consecutive rows.

        Args:
            rows: Number of rows.
            columns: Function that returns their columns, or None if they must be converted one by one.
            by_row: Function that returns the rows one by one.
        """
        first, self._next = self._next, self._next + rows
        self.total += rows
        arrays = None if rows < FEW else columns()
        found = None if arrays is None else self._columns.records(first, arrays, rows)
        return (
            to_batch([self._reader.record(n, row) for n, row in enumerate(by_row(), first)]) if found is None else found
        )

    def _count_unparsed(self) -> None:
        count = self._reader.bad.take(self._unparsed)
        self.total += count
        self.unparsed_rows += count


def add_repeats(ids: pa.ChunkedArray, rows_again: Callable[[], Rows], bad: Problems) -> None:
    """Add the rows whose id an earlier row has to a collection of problems, only the first one with its location.

    Args:
        ids: Ids of all rows.
        rows_again: Function that opens the table again, which is called if there are such rows.
        bad: Collection of problems.
    """
    rows = repeated(ids)
    if rows:
        repeat, first = rows[0]
        where, again = row_places(rows_again(), [first, repeat])
        places = [f"{again}, {ids[repeat].as_py()!r} of {where}"] + [""] * (len(rows) - 1)
        for place in places:
            bad.add(place, "repeat an id", "make ids unique")


def row_places(found: Rows, numbers: Sequence[int]) -> list[str]:
    """Return the locations of some rows, such as ``line 7``.

    Args:
        found: Rows of the table, which are read for this.
        numbers: Numbers of the rows among those that can be parsed, from 0, sorted.
    """
    places: list[str] = []
    if found.batches is None:
        wanted = {*numbers}
        return [row.where for number, row in enumerate(found.rows) if number in wanted]
    start = 0
    for batch in found.batches:
        while len(places) < len(numbers) and numbers[len(places)] < start + len(batch.columns):
            places.append(batch.place(numbers[len(places)] - start))
        start += len(batch.columns)
    return places
