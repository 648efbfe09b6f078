"""Labels in one column of zeros and ones for each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from robusttune.data.problems import Problems
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.rows import Row

TEXTS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


class LabelColumns:
    """A parser of the label columns of one split: `read_row` each row in order, then `check` the columns.

    Args:
        columns: Names of the columns, which are the names of the classes.
        multilabel: Flag, True if a sample may have any number of classes, False if it has exactly one.
        blanks: Test for blank cells of the split's other columns.

    Example:
        >>> labels = LabelColumns(["soup", "salad"], multilabel=False, blanks=Blanks())
        >>> labels.read_row(Row("line 2", {"soup": "0", "salad": 1}), Problems("a.csv", "rows"))
        ['salad']
    """

    def __init__(self, columns: Sequence[str], multilabel: bool, blanks: Blanks) -> None:
        self.columns = columns
        self.blanks = blanks
        self.multilabel = multilabel
        self._unused = {*columns}

    def read_row(self, row: Row, bad: Problems) -> list[str] | None:
        """Return the names of a sample's classes, or None where the row has none of the columns.

        Args:
            row: Row of the sample.
            bad: Collection of problems, extended if a cell is neither 0 nor 1, or a single-label sample has not one 1.
        """
        where, cells = row
        if not any(name in cells for name in self.columns):
            return None
        flags = {name: as_flag(cells.get(name)) for name in self.columns}
        unclear = [name for name, flag in flags.items() if flag is None]
        labels = [name for name, flag in flags.items() if flag]
        if unclear:
            value = cells.get(unclear[0])
            what = "a blank" if _is_blank(value) else "another value than 0 and 1"
            shown = "" if _is_blank(value) else f": {value!r:.40}"
            bad.add(f"{where}, {unclear[0]}{shown}", f"have {what} in a label column", "write 0 or 1")
        elif not self.multilabel and len(labels) != 1:
            what = "have no 1 in the label columns" if not labels else "have more than one 1 in the label columns"
            at = f"{where}, {', '.join(labels)}" if labels else where
            bad.add(at, what, "write exactly one 1, or set data.source.multilabel to true")
        self.use(labels)
        return labels

    def use(self, names: Sequence[str]) -> None:
        """Remember that some columns have a 1."""
        self._unused.difference_update(names)

    def check(self, place: object) -> list[str]:
        """Return a warning if columns have no 1, after the last row.

        Args:
            place: File or split, for the message.
        """
        unused = [name for name in self.columns if name in self._unused]
        return [f"{place}: no row has a 1 in the label columns {', '.join(unused)[:300]}"] if unused else []


def as_flag(value: Any) -> bool | None:
    """Convert a cell to a flag, or to None where it is neither 0 nor 1, in whatever notation.

    Example:
        >>> as_flag("1.0"), as_flag(False), as_flag("2")
        (True, False, None)
    """
    if isinstance(value, str):
        return TEXTS.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))
