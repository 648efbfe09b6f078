"""Table files to rows: what cannot be understood is counted and refused, never passed over."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet

from robusttune.data.problems import Problems
from robusttune.data.sources.files import is_unicode, read_text, unchanged
from robusttune.errors import RobustTuneError


class Row(NamedTuple):
    """A row of a table, and where it stands there (``line 7``)."""

    where: str
    cells: Mapping[str, Any]


def read_rows(path: Path, bad: Problems, columns: Collection[str] | None = None) -> list[Row]:
    """The rows of a table file; its ending, one of `READERS`, tells the format.

    Args:
        path: of the file.
        bad: takes what cannot be understood.
        columns: that are kept, all by default; what else large tables have would fill the memory.

    Raises:
        RobustTuneError: the file as a whole cannot be read, or has no rows.
    """
    rows = [
        row if columns is None else Row(row.where, {name: row.cells[name] for name in columns if name in row.cells})
        for row in READERS[path.suffix](path, bad)
    ]
    if not rows and not bad:
        raise RobustTuneError(f"{path} has no rows: give a table with samples")
    return rows


def as_text(value: Any) -> str | None:
    """A cell as text; blank where it is empty, None where it is no text, number or truth value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):  # how pandas writes a blank cell
        return ""
    if isinstance(value, str | int | float):
        return str(value) if is_unicode(str(value)) else None
    return None


def text_of(row: Row, column: str | None, bad: Problems, needed: bool = False) -> str | None:
    """A cell's text, or None where it is blank.

    Args:
        row: that has the cell.
        column: of the cell, or None where there is none.
        bad: takes what is no text.
        needed: whether the row must have the column, if blank.
    """
    value = None if column is None else row.cells.get(column)
    text = as_text(value)
    if text is None:
        bad.add(f"{row.where}, {value!r:.40}", f"have no text in the column {column}", "write text there")
    elif needed and column not in row.cells:
        bad.add(row.where, f"have no {column}", "add it, blank where it is absent")
    return text if text and text.strip() else None


def _read_jsonl(path: Path, bad: Problems) -> Iterator[Row]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.add(f"line {number}, {error}", "are not JSON")
            continue
        if isinstance(cells, dict):
            yield Row(f"line {number}", cells)
        else:
            bad.add(f"line {number}", "are not JSON objects", "write one object a line")


def _read_csv(path: Path, bad: Problems) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            bad.add(f"line {reader.line_num}, {error}", "are not CSV")
            continue
        if header is None:
            header = _header(path, cells)
        elif len(cells) == len(header):
            yield Row(f"line {reader.line_num}", dict(zip(header, cells, strict=True)))
        elif cells:  # a blank line has none
            where = f"line {reader.line_num}, {len(cells)} cells, not {len(header)}"
            bad.add(where, "have not as many cells as the header", "quote cells that hold commas")


def _header(path: Path, names: list[str]) -> list[str]:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice or not names:
        what = f"names the column {twice[0]!r} twice" if twice else "is blank"
        raise RobustTuneError(f"the first line of {path} {what}: give it a header with the names of the columns")
    return names


def _read_parquet(path: Path, bad: Problems) -> Iterator[Row]:
    try:
        with unchanged(path):
            rows: Iterable[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except RobustTuneError:
        raise
    except (
        Exception
    ) as error:  # on damaged files it raises ArrowException, OSError, UnicodeDecodeError, MemoryError, ...
        reason = str(error).split("\n")[0].replace(str(path), path.name)[:160]
        raise RobustTuneError(f"{path} is no readable Parquet file ({reason}): write it again") from None
    for number, cells in enumerate(rows, 1):
        yield Row(f"row {number}", cells)


READERS: dict[str, Callable[[Path, Problems], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
