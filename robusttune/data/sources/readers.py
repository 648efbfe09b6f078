"""Readers of JSONL, CSV and Parquet tables. Rows that cannot be parsed are counted and refused, never skipped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet

from robusttune.data.packs import Part, pack
from robusttune.data.problems import Problems
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.csv_file import read_csv
from robusttune.data.sources.files import guard_against_changes, is_unicode, read_text
from robusttune.data.sources.image_cells import holds_content, stored_parts
from robusttune.data.sources.rows import Row, Rows
from robusttune.errors import RobustTuneError

ROWS = 16  # rows of embedded images that are in memory at a time
BUFFER = 1 << 20  # bytes read at a time


def read_rows(path: Path, bad: Problems, columns: Collection[str]) -> Rows:
    """Read a table file in the format of its extension.

    Args:
        path: Path of the file, with an extension in `READERS`, in lower or upper case.
        bad: Collection of problems, extended by rows that cannot be parsed.
        columns: Names of the columns to keep. The others are dropped, since they may be many and large.

    Raises:
        RobustTuneError: If the file as a whole cannot be read, or has no rows.
    """
    found = READERS[path.suffix.lower()](path, bad, {*columns})
    if not found.rows and not bad:
        raise RobustTuneError(f"{path} has no rows: give a table with samples")
    return found


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


def _read_jsonl(path: Path, bad: Problems, columns: set[str]) -> Rows:
    rows: list[Row] = []
    names: set[str] = set()
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.add(f"line {number}, {error}", "are not JSON")
            continue
        if isinstance(cells, dict):
            names |= cells.keys()
            rows.append(Row(f"line {number}", {name: cells[name] for name in columns & cells.keys()}))
        else:
            bad.add(f"line {number}", "are not JSON objects", "write one object a line")
    return Rows(rows, sorted(names))


def _read_parquet(path: Path, bad: Problems, columns: set[str]) -> Rows:
    try:
        with guard_against_changes(path):
            schema = pyarrow.parquet.read_schema(path)
            names, wanted = schema.names, [name for name in schema.names if name in columns]
            kinds = dict(zip(names, schema.types, strict=True))
            embedded = [name for name in wanted if holds_content(kinds[name])]
            table = pyarrow.parquet.read_table(path, columns=[name for name in wanted if name not in embedded])
            rows = table.to_pylist() if table.num_columns else [{} for _ in range(table.num_rows)]
            for name in embedded:  # the images are not held in memory
                images = pack(path, name, partial(_image_parts, path, name))
                for cells, cell in zip(rows, images, strict=True):
                    cells[name] = cell
    except RobustTuneError:
        raise
    except Exception as error:  # damaged files raise ArrowException, OSError, UnicodeDecodeError, MemoryError, ...
        reason = str(error).split("\n")[0].replace(str(path), path.name)[:160]
        raise RobustTuneError(f"{path} is no readable Parquet file ({reason}): write it again") from None
    return Rows([Row(f"row {number}", cells) for number, cells in enumerate(rows, 1)], names)


def _image_parts(path: Path, column: str) -> Iterator[list[Part]]:
    """Yield the images in each row of a column of a Parquet file, few rows at a time."""
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
            for batch in file.iter_batches(ROWS, columns=[column]):
                yield from map(stored_parts, batch.column(0).to_pylist())
    except OSError as error:  # the file is damaged, unlike an OSError of the pack
        raise ValueError(error) from None


READERS: dict[str, Callable[[Path, Problems, set[str]], Rows]] = {
    ".jsonl": _read_jsonl,
    ".csv": read_csv,
    ".parquet": _read_parquet,
}
