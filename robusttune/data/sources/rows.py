"""The data types that readers of table files return: one row, and all rows with the column names."""

from __future__ import annotations

from collections.abc import Mapping
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
    """The rows of a table file.

    Attributes:
        rows: Rows that can be read, in order.
        columns: Names of all columns of the file, also those that were not requested.
    """

    rows: list[Row]
    columns: list[str]
