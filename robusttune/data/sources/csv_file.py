"""A reader of delimited text (CSV, TSV) with a header, which detects the delimiter."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from robusttune.data.problems import Problems
from robusttune.data.sources.compression import open_text, split_compression
from robusttune.data.sources.rows import Row, Rows, TableOptions
from robusttune.errors import RobustTuneError

DELIMITERS = ",;\t|"  # that are detected; the first of them on a tie
SEP_LINE = re.compile(r'"?sep=(.)"?[ \t]*(?:\n|$)', re.IGNORECASE)  # Excel's line that names the delimiter
NAMES = {"\\t": "\t", "tab": "\t"}  # how a tab is written where a tab cannot be typed


def read_csv(path: Path, bad: Problems, columns: set[str], options: TableOptions) -> Rows:
    """Read a table of delimited text whose first line is a header.

    The delimiter is that of the settings, else that of Excel's ``sep=`` line, else a tab for ``.tsv``, else the one of
    `DELIMITERS` that splits the header into most of the requested columns, and then into most columns.

    Columns without a name are ignored, such as the index that pandas writes as the first column. Cells after the last
    named column must be blank, because a cell with an unquoted comma would shift the rest of its row there.

    Args:
        path: Path of the file.
        bad: Collection of problems, extended by rows that cannot be parsed.
        columns: Names of the columns to keep.
        options: Delimiter, if it is set.

    Returns:
        Rows with the kept cells as texts, and the names of all columns.

    Raises:
        RobustTuneError: If the file cannot be read, its delimiter is unclear, or its header is blank or names a
            column twice.
    """
    csv.field_size_limit(2**31 - 1)
    with open_text(path) as file:
        encoding = ", UTF-16" if file.encoding == "utf-16" else ""
        line = file.readline()
        sep_line = SEP_LINE.match(line)
        header = file.readline() if sep_line else line
    is_tsv = split_compression(path.name)[0].endswith(".tsv")
    chosen = options.delimiter or (sep_line[1] if sep_line else "\t" if is_tsv else None)
    delimiter = chosen or _detect(path, header, columns)
    names: list[str] = []
    decision = f"{'TSV' if is_tsv else 'CSV'} with the delimiter {delimiter!r}{encoding}"
    return Rows(_rows(path, bad, columns, delimiter, names, skipped=bool(sep_line)), names, decision)


def delimiter_setting(value: str | None) -> str | None:
    """Return the delimiter that a setting names.

    Raises:
        RobustTuneError: The setting is not one character, or one that cannot stand between cells.

    Example:
        >>> delimiter_setting("tab"), delimiter_setting("^")
        ('\\t', '^')
    """
    if value is None:
        return None
    delimiter = NAMES.get(value.lower(), value)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise RobustTuneError(
            f"data.source.delimiter is {value!r}: give the one character between cells, such as ';' or tab"
        )
    return delimiter


def _rows(
    path: Path, bad: Problems, columns: set[str], delimiter: str, names: list[str], skipped: bool
) -> Iterator[Row]:
    """Yield the rows, and fill ``names`` with the names of the columns.

    Args:
        path: Path of the file.
        bad: Collection of problems.
        columns: Names of the columns to keep.
        delimiter: Character between cells.
        names: Empty list.
        skipped: Flag, True if the first line is Excel's ``sep=`` line.
    """
    with open_text(path) as file:
        if skipped:
            file.readline()
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        keep: list[tuple[int, str]] = []
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                bad.add(f"line {skipped + reader.line_num}, {error}", "are not CSV")
                continue
            where = f"line {skipped + reader.line_num}"
            if header is None:
                header = _header(path, cells)
                names.extend(name for name in header if name)
                keep = [(place, name) for place, name in enumerate(header) if name in columns]
            elif cells and _fits(cells, len(header), where, bad):  # the reader returns no cells for a blank line
                yield Row(where, {name: cells[place] for place, name in keep})


def _detect(path: Path, header: str, columns: set[str]) -> str:
    """Return the delimiter that splits a header into most of the requested columns, and then into most columns.

    Raises:
        RobustTuneError: If no delimiter splits the header, and it is none of the columns.
    """

    def fit(mark: str) -> tuple[int, int]:
        try:
            names = next(csv.reader([header], delimiter=mark), [])
        except csv.Error:
            return 0, 0
        return len(columns.intersection(names)), len(names)

    best = max(DELIMITERS, key=fit)
    if fit(best) == (0, 1) and header.strip():
        raise RobustTuneError(
            f"the delimiter of {path} cannot be told: its first line {header.strip()!r:.120} is no column that is "
            f"needed ({', '.join(sorted(columns)):.200}), and no comma, semicolon, tab or bar splits it: set "
            "data.source.delimiter, or correct the names of the columns"
        )
    return best


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
    if len(cells) == width:
        return True
    if len(cells) < width or any(cell.strip() for cell in cells[width:]):
        where = f"{where}, {len(cells)} cells, not {width}"
        bad.add(where, "have not as many cells as the header", "quote cells that hold the delimiter")
        return False
    return True
