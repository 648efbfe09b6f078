"""A table read row by row, in constant memory: rows that cannot be used are kept, with the reason."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Record
from robusttune.data.sources.table_records import OpenedTable, require_columns

NOTHING = Record("", None, None, None)


class StreamedRow(NamedTuple):
    """A row of a table.

    Attributes:
        record: Record of the row. A modality that cannot be used is missing in it; a row that cannot be parsed has
            neither modality.
        id: Identifier; None if the row should have one and has none.
        cells: Values of the requested columns, by column name.
        problem: Reason why a part of the row cannot be used, or None.
    """

    record: Record
    id: str | None
    cells: Mapping[str, Any]
    problem: str | None


class TableStream:
    """The rows of a table in their order, read while they are iterated over, once.

    Args:
        opened: Opened table.
        needed: Names of the columns that the table must have.

    Attributes:
        path: Path of the table, for messages.
        found: Rows of the table, and the names of all its columns, which are complete after the last row.
        blanks: Test for blank cells, which counts cells that look blank.
    """

    def __init__(self, opened: OpenedTable, needed: Collection[str]) -> None:
        self.path = opened.path
        self.found = opened.found
        self.blanks = opened.reader.blanks
        self._unparsed = opened.unparsed
        self._reader = opened.reader
        self._packing = opened.packing
        self._needed = needed

    def __iter__(self) -> Iterator[StreamedRow]:
        bad, number = self._reader.bad, 0
        with self._packing:
            for row in self.found.rows:
                if number == 0:
                    self._check_columns()
                for reason in reasons(self._unparsed):  # of rows before this one
                    number += 1
                    yield self._without_record(number, reason)
                number += 1
                record = self._reader.record(number, row)
                found = "; ".join(reasons(bad)) or None
                has_id = self._reader.id_column is None or record.id != row.where
                yield StreamedRow(record, record.id if has_id else None, row.cells, found)
            for reason in reasons(self._unparsed):
                number += 1
                yield self._without_record(number, reason)
        self._check_columns()

    def _check_columns(self) -> None:
        """Check that the table has the needed columns, if its columns are known yet."""
        if self.found.columns:
            require_columns(self.path, self.found, self._needed)

    def _without_record(self, number: int, reason: str) -> StreamedRow:
        return StreamedRow(NOTHING, str(number) if self._reader.id_column is None else None, {}, reason)


def reasons(bad: Problems) -> list[str]:
    """Return the problems found so far as phrases about one row, and remove them from the collection.

    Example:
        >>> bad = Problems("a.csv", "rows")
        >>> bad.add("line 7, 2 cells, not 3", "have not as many cells as the header")
        >>> reasons(bad), len(bad)
        (['line 7, 2 cells, not 3, has not as many cells as the header'], 0)
    """
    found = [f"{place:.300}, {_singular(what)}" for (what, _), places in bad.found.items() for place in places]
    bad.found.clear()
    return found


def _singular(phrase: str) -> str:
    """Return a phrase that continues "3 rows ..." as one that continues "row 3 ..."."""
    verb, _, rest = phrase.partition(" ")
    return f"{ {'are': 'is', 'have': 'has'}.get(verb, f'{verb}s') } {rest}"
