"""Reading of tables in any format, row by row, and conversion of cells to texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from robusttune.data.problems import Problems
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.compression import split_compression
from robusttune.data.sources.files import is_unicode
from robusttune.data.sources.rows import Row, RowBatch, Rows, TableOptions
from robusttune.data.sources.table_files import READERS, ending_of, table_files
from robusttune.errors import RobustTuneError

DEFAULTS = TableOptions()
Part = TypeVar("Part", Row, RowBatch)


def read_rows(path: Path, bad: Problems, columns: Collection[str], options: TableOptions = DEFAULTS) -> Rows:
    """Open a table in the format of its ending.

    Args:
        path: Path of a file, a folder or a pattern, see `table_files`.
        bad: Collection of problems, extended by rows that cannot be parsed while the rows are iterated over.
        columns: Names of the columns to keep. The others are dropped, since they may be many and large.
        options: Settings that override what is detected.

    Raises:
        RobustTuneError: If a file as a whole cannot be read. While the rows are iterated over: also if it has no rows,
            or if files of one table have different columns.
    """
    files = table_files(path)
    first = READERS[ending_of(files[0])](files[0], bad, {*columns}, options)
    decision = ", ".join(filter(None, [first.decision, split_compression(files[0].name)[1]]))
    if len(files) > 1:
        decision = ", ".join(filter(None, [decision, f"{len(files)} files from {files[0].name} to {files[-1].name}"]))
    files_of_rows = _Files(path, files, first, bad, {*columns}, options)
    batches = None if first.batches is None else files_of_rows.batches()
    return Rows(files_of_rows.rows(), first.columns, decision, batches)


def as_text(value: Any) -> str | None:
    """Convert a cell to text.

    Args:
        value: Content of the cell.

    Returns:
        Text of the cell, ``""`` for None and NaN, or None where the cell is not a valid Unicode text, number or bool.

    Example:
        >>> as_text(7), as_text(float("nan")), as_text(["a"])
        ('7', '', None)
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):  # pandas writes a blank cell as NaN
        return ""
    if isinstance(value, str | int | float):
        return str(value) if is_unicode(str(value)) else None
    return None


def cell_text(row: Row, column: str | None, bad: Problems, blanks: Blanks, needed: bool = False) -> str | None:
    """Return the text of a cell, or None where it is blank or has a problem.

    Args:
        row: Row of the cell.
        column: Name of the cell's column, or None where the table has no such column.
        bad: Collection of problems, extended if the cell holds no text.
        blanks: Test for blank cells.
        needed: Flag, True if a row without the column is a problem, too.

    Example:
        >>> cell_text(Row("line 1", {"text": "soup"}), "text", Problems("a.csv", "rows"), Blanks())
        'soup'
    """
    if column is None:
        return None
    value = row.cells.get(column)
    text = as_text(value)
    if text is None:
        bad.add(f"{row.where}, {value!r:.40}", f"have no text in the column {column}", "write text there")
    elif needed and column not in row.cells:
        bad.add(row.where, f"have no {column}", "add it, blank where it is absent")
    return None if text is None or blanks.is_blank(text, column) else text


class _Files(NamedTuple):
    """The files of a table."""

    path: Path
    files: list[Path]
    first: Rows
    bad: Problems
    columns: set[str]
    options: TableOptions

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all files."""
        return self._chain(
            lambda found, file: (row._replace(where=file + row.where) if file else row for row in found.rows)
        )

    def batches(self) -> Iterator[RowBatch]:
        """Yield the batches of all files."""
        return self._chain(lambda found, file: (batch._replace(file=file) for batch in found.batches or ()))

    def _chain(self, parts_of: Callable[[Rows, str], Iterator[Part]]) -> Iterator[Part]:
        """Yield the parts of all files.

        Args:
            parts_of: Function that returns the parts of a file, with the given start of their locations.
        """
        count = 0
        for file in self.files:
            found: Rows = self.first if file == self.files[0] else self._open(file)
            for part in parts_of(found, f"{file.name}, " if len(self.files) > 1 else ""):
                count += 1
                yield part
            lacks = sorted(self.columns & ({*self.first.columns} - {*found.columns}))
            if lacks and found.columns:
                raise RobustTuneError(
                    f"{file} has no column {', '.join(lacks)}, unlike {self.files[0].name}: repair or remove it"
                )
        if not count and not self.bad:
            raise RobustTuneError(f"{self.path} has no rows: give a table with samples")

    def _open(self, file: Path) -> Rows:
        return READERS[ending_of(file)](file, self.bad, self.columns, self.options)
