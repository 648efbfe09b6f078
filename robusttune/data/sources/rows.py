"""A row of a table file, and all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        where: Its place in the file, such as ``line 7``.
        cells: The cells that were asked for, by column.
    """

    where: str
    cells: Mapping[str, Any]


class Rows(NamedTuple):
    """The rows of a table file.

    Attributes:
        rows: Rows that can be read, in order.
        columns: Names of all columns of the file.
    """

    rows: list[Row]
    columns: list[str]
