"""Reading of tables in any format, row by row, and conversion of cells to texts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from robusttune.data.problems import Problems
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.compression import split_compression
from robusttune.data.sources.files import is_unicode
from robusttune.data.sources.rows import Row, Rows, TableOptions
from robusttune.data.sources.table_files import READERS, ending_of, table_files
from robusttune.errors import RobustTuneError

DEFAULTS = TableOptions()


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
    return Rows(_chain(path, files, first, bad, {*columns}, options), first.columns, decision)


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


def _chain(
    path: Path, files: list[Path], first: Rows, bad: Problems, columns: set[str], options: TableOptions
) -> Iterator[Row]:
    """Yield the rows of all files of a table."""
    count = 0
    for file in files:
        found = first if file == files[0] else READERS[ending_of(file)](file, bad, columns, options)
        for row in found.rows:
            count += 1
            yield row if len(files) == 1 else Row(f"{file.name}, {row.where}", row.cells)
        lacks = sorted(columns & ({*first.columns} - {*found.columns}))
        if lacks and found.columns:
            raise RobustTuneError(
                f"{file} has no column {', '.join(lacks)}, unlike {files[0].name}: repair or remove it"
            )
    if not count and not bad:
        raise RobustTuneError(f"{path} has no rows: give a table with samples")
