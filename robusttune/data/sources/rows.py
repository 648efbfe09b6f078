"""The data types of table files: one row, all rows with the column names, and the settings of a reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row of a table file.

    Attributes:
        where: Location in the file for messages, such as ``line 7``.
        cells: Values of the requested columns, by column name. Columns that the row lacks are not in it.

    Example:
        >>> Row("line 7", {"text": "soup"}).cells["text"]
        'soup'
    """

    where: str
    cells: Mapping[str, Any]


class Rows(NamedTuple):
    """The rows of a table file, which are read while they are iterated over, once.

    Attributes:
        rows: Iterator over the rows that can be parsed, in order.
        columns: Names of all columns of the file, also those that were not requested. The list is complete when the
            last row has been read.
        decision: What was detected, such as ``CSV with the delimiter ';'``. It is empty where the file's ending says
            everything.
    """

    rows: Iterator[Row]
    columns: list[str]
    decision: str = ""


@dataclass(frozen=True)
class TableOptions:
    """Settings that override what is detected in a table file.

    Attributes:
        delimiter: Character between the cells of CSV and TSV files, or None to detect it.
        sheet: Name of the sheet of Excel files, or None to choose it.
        split: Name of the split that is read. An Excel sheet of this name is chosen.
    """

    delimiter: str | None = None
    sheet: str | None = None
    split: str = ""
