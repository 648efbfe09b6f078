"""A reader of Excel workbooks (.xlsx) with a header, which needs the extra ``excel``."""

from __future__ import annotations

import datetime
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from robusttune.data.problems import Problems
from robusttune.data.sources.compression import check_expansion
from robusttune.data.sources.extras import import_extra
from robusttune.data.sources.files import guard_against_changes
from robusttune.data.sources.rows import Row, Rows, TableOptions
from robusttune.errors import RobustTuneError

MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z0-9:]{1,30})"')
RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
BLOCK = 1 << 20  # bytes
KEPT_ERROR = "#N/A"  # Excel's way to say that a value is missing; `Blanks` knows it


def read_excel(path: Path, bad: Problems, columns: set[str], options: TableOptions) -> Rows:
    """Read a sheet of a workbook whose first row is a header.

    The sheet is that of the settings, else the one with the name of the split, else the only visible one. Formulas have
    the values that Excel has stored for them. Dates become texts (``2024-05-31``), whole numbers texts without a point.

    Args:
        path: Path of the workbook.
        bad: Collection of problems, extended by cells that hold an error or a formula without a value.
        columns: Names of the columns to keep.
        options: Name of the sheet, if it is set, and of the split.

    Raises:
        RobustTuneError: If the file cannot be read, openpyxl is not installed, the sheet is unclear, or it has
            merged cells or no proper header.
    """
    import_extra("openpyxl", "excel")
    with guard_against_changes(path):
        sheets = _sheets(path)
        sheet = _choose(path, sheets, options)
        _check_parts(path, sheets[sheet])
        header = _header(path, sheet)
    decision = f"Excel, sheet {sheet!r}" + (f" of {len(sheets)}" if len(sheets) > 1 else "")
    return Rows(_rows(path, sheet, header, bad, columns), [name for name in header if name], decision)


def _sheets(path: Path) -> dict[str, str]:
    """Return the names of the visible sheets, each with the name of its file in the workbook.

    Raises:
        RobustTuneError: If the file is no workbook.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            book = ElementTree.fromstring(_part(path, parts, "xl/workbook.xml"))
            relations = ElementTree.fromstring(_part(path, parts, "xl/_rels/workbook.xml.rels"))
        targets = {relation.get("Id"): str(relation.get("Target")) for relation in relations}
        return {
            str(sheet.get("name")): _inside(targets[sheet.get(RELATION)])
            for sheet in book.iter()
            if sheet.tag.endswith("}sheet") and sheet.get("state", "visible") == "visible"
        }
    except RobustTuneError:
        raise
    except Exception as error:  # zipfile raises BadZipFile, NotImplementedError, zlib.error, ...
        raise _damaged(path, error) from None


def _inside(target: str) -> str:
    """Return the name of a part of the workbook, which is given relative to ``xl`` or to the whole."""
    return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"


def _part(path: Path, parts: zipfile.ZipFile, name: str) -> bytes:
    entry = parts.getinfo(name)
    check_expansion(path, entry.compress_size, entry.file_size)
    return parts.read(name)


def _damaged(path: Path, error: Exception) -> RobustTuneError:
    hint = "save it as an Excel workbook (.xlsx) without a password"
    return RobustTuneError(f"{path} is no readable Excel workbook ({error!s:.120}): {hint}")


def _choose(path: Path, sheets: dict[str, str], options: TableOptions) -> str:
    """Return the name of the sheet to read.

    Raises:
        RobustTuneError: If the sheet of the settings does not exist, or the sheet is unclear.
    """
    has = f"it has {', '.join(sheets) or 'none'}"[:300]
    if options.sheet is not None:
        if options.sheet not in sheets:
            raise RobustTuneError(f"{path} has no visible sheet {options.sheet!r} ({has}): correct data.source.sheet")
        return options.sheet
    if options.split in sheets:
        return options.split
    if len(sheets) != 1:
        raise RobustTuneError(
            f"{path} has {len(sheets)} visible sheets, none with the name {options.split!r} ({has}): set "
            "data.source.sheet to the one with the samples"
        )
    return next(iter(sheets))


def _check_parts(path: Path, name: str) -> None:
    """Check the size of all parts of a workbook, and that a sheet has no merged cells.

    Raises:
        RobustTuneError: If a part is unreasonably large, the sheet has merged cells, or the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            for entry in parts.infolist():
                check_expansion(path, entry.compress_size, entry.file_size)
            with parts.open(name) as part:
                rest = b""
                while block := part.read(BLOCK):
                    found = MERGED.search(rest + block)
                    if found:
                        raise RobustTuneError(
                            f"{path} has merged cells (the first: {found[1].decode()}), of which only one holds the "
                            "value: unmerge them, and fill each cell"
                        )
                    rest = block[-200:]
    except RobustTuneError:
        raise
    except Exception as error:
        raise _damaged(path, error) from None


def _open(path: Path, sheet: str, values: bool) -> tuple[Any, Iterator[tuple[Any, ...]]]:
    """Return an open workbook, and an iterator over the rows of a sheet.

    Args:
        path: Path of the workbook.
        sheet: Name of the sheet.
        values: Flag, True for the stored values of formulas, False for the formulas.
    """
    openpyxl = import_extra("openpyxl", "excel")
    book = openpyxl.load_workbook(path, read_only=True, data_only=values)
    book[sheet].reset_dimensions()  # the size that some programs write is wrong
    return book, book[sheet].iter_rows()


def _header(path: Path, sheet: str) -> list[str]:
    """Return the column names up to the last one; an empty text for columns without a name.

    Raises:
        RobustTuneError: If the header is blank or names a column twice, or the file is damaged.
    """
    try:
        book, rows = _open(path, sheet, values=True)
        names = [str(as_plain(cell.value) or "").strip() for cell in next(iter(rows), ())]
        book.close()
    except Exception as error:  # openpyxl raises KeyError, ValueError, ParseError, ... for damaged files
        raise _damaged(path, error) from None
    while names and not names[-1]:
        names.pop()
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice or not names:
        problem = f"names the column {twice[0]!r:.80} twice" if twice else "is blank"
        raise RobustTuneError(
            f"the first row of {path}, sheet {sheet!r}, {problem}: give it a header with the names of the columns"
        )
    return names


def _rows(path: Path, sheet: str, header: list[str], bad: Problems, columns: set[str]) -> Iterator[Row]:
    keep = [(place, name) for place, name in enumerate(header) if name in columns]
    opened: list[Any] = []
    try:
        with guard_against_changes(path):
            book, rows = _open(path, sheet, values=True)
            opened.append(book)
            book, formulas = _open(path, sheet, values=False)
            opened.append(book)
            for number, (row, raw) in enumerate(zip(rows, formulas, strict=True), 1):
                if number == 1 or all(cell.value is None for cell in raw):
                    continue
                cells = {name: row[place] if place < len(row) else None for place, name in keep}
                pairs = ((name, cells[name], raw[place] if place < len(raw) else None) for place, name in keep)
                if all(_has_value(cell, formula, f"row {number}, {name}", bad) for name, cell, formula in pairs):
                    values = {name: as_plain(getattr(cell, "value", None)) for name, cell in cells.items()}
                    yield Row(f"row {number}", values)
    except (RobustTuneError, GeneratorExit):
        raise
    except Exception as error:
        raise _damaged(path, error) from None
    finally:
        for book in opened:
            book.close()


def _has_value(cell: Any, formula: Any, where: str, bad: Problems) -> bool:
    """Return False and add a problem if a cell holds an error, or a formula that no value is stored for."""
    value = getattr(cell, "value", None)
    if getattr(cell, "data_type", "") == "e" and value != KEPT_ERROR:
        bad.add(f"{where}: {value}", "hold an error", "correct the formula")
        return False
    if value is None and getattr(formula, "value", None) is not None:
        bad.add(where, "have a formula without a stored value", "open the workbook in Excel, and save it")
        return False
    return True


def as_plain(value: Any) -> Any:
    """Convert the value of a cell as it is shown: a date to a text, a whole number to an ``int``.

    Example:
        >>> as_plain(3.0), as_plain(datetime.datetime(2024, 5, 31))
        (3, '2024-05-31')
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, datetime.datetime):
        midnight = value.time() == datetime.time()
        return value.date().isoformat() if midnight else value.isoformat(" ", "seconds")
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return str(value)
    return value
