"""A reader of CSV files with a header whose delimiter is a comma, semicolon, tab or vertical bar."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path

from robusttune.data.problems import Problems
from robusttune.data.sources.files import read_text
from robusttune.data.sources.rows import Row, Rows
from robusttune.errors import RobustTuneError

DELIMITERS = ",;\t|"  # the one that splits the header into the most columns is used; the first of them on a tie
SEP_LINE = re.compile(r'"?sep=(.)"?[ \t]*(?:\n|$)', re.IGNORECASE)  # Excel's line that names the delimiter


def read_csv(path: Path, bad: Problems, columns: set[str]) -> Rows:
    """Read a CSV file whose first line is a header.

    Columns without a name are ignored, such as the index that pandas writes as the first column. Cells after the last
    named column must be blank, because a cell with an unquoted comma would shift the rest of its row there.

    Args:
        path: Path of the file.
        bad: Collection of problems, extended by rows that cannot be parsed.
        columns: Names of the columns to keep.

    Returns:
        Rows with the kept cells as texts, and the names of all columns.

    Raises:
        RobustTuneError: If the file cannot be read, or its header is blank or names a column twice.
    """
    csv.field_size_limit(2**31 - 1)
    text = read_text(path)
    sep_line = SEP_LINE.match(text)
    text = text[sep_line.end() if sep_line else 0 :]
    delimiter = sep_line[1] if sep_line else _delimiter(text.split("\n", 1)[0])
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    names: list[str] | None = None
    keep: list[tuple[int, str]] = []
    first = 1 if sep_line else 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return Rows(rows, [name for name in names or [] if name])
        except csv.Error as error:
            bad.add(f"line {first + reader.line_num}, {error}", "are not CSV")
            continue
        where = f"line {first + reader.line_num}"
        if names is None:
            names = _header(path, cells)
            keep = [(place, name) for place, name in enumerate(names) if name in columns]
        elif cells and _fits(cells, len(names), where, bad):  # the reader returns no cells for a blank line
            rows.append(Row(where, {name: cells[place] for place, name in keep}))


def _delimiter(header: str) -> str:
    return max(DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), ())))


def _header(path: Path, cells: list[str]) -> list[str]:
    """Return the column names up to the last column that has one; an empty text for columns without a name.

    Raises:
        RobustTuneError: If the header is blank or names a column twice.
    """
    width = max((place for place, name in enumerate(cells, 1) if name.strip()), default=0)
    names = [name if name.strip() else "" for name in cells[:width]]
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice or not names:
        problem = f"names the column {twice[0]!r:.80} twice" if twice else "is blank"
        raise RobustTuneError(f"the first line of {path} {problem}: give it a header with the names of the columns")
    return names


def _fits(cells: list[str], width: int, where: str, bad: Problems) -> bool:
    """Return whether a row has as many cells as the header, and add a problem if not."""
    if len(cells) < width or any(cell.strip() for cell in cells[width:]):
        where = f"{where}, {len(cells)} cells, not {width}"
        bad.add(where, "have not as many cells as the header", "quote cells that hold the delimiter")
        return False
    return True
