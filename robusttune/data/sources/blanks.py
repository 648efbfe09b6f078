"""Detection of blank table cells: empty ones, those that the user lists, and those that only look blank."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from copy import copy

log = logging.getLogger(__name__)

# Texts that pandas, R, Excel and databases write for a missing value, in lower case.
MARKERS = frozenset(
    ("nan", "-nan", "none", "null", "nil", "nat", "n/a", "na", "<na>", "#n/a", "#na", "#n/a n/a", "(null)", "\\n")
)
SHOWN = 5


class Blanks:
    """A test for blank cells that also counts the cells that look blank but are kept as text.

    Args:
        blank: Texts that count as blank in addition to empty cells, compared without case and surrounding spaces. With
            None, only empty cells are blank, and texts that programs write for missing values are counted for `warn`.

    Example:
        >>> Blanks(["n/a"]).is_blank(" N/A ", "text")
        True
    """

    def __init__(self, blank: Sequence[str] | None = None) -> None:
        self.blank = {text.strip().casefold() for text in blank or ()} | {""}
        self.markers = MARKERS if blank is None else frozenset()
        self.found: dict[str, Counter[str]] = {}

    def copy(self) -> Blanks:
        """Return the same test without counts."""
        other = copy(self)
        other.found = {}
        return other

    def is_blank(self, text: str, column: str) -> bool:
        """Return whether a cell is blank, and count it if it only looks blank.

        Args:
            text: Text of the cell.
            column: Name of its column; counts are kept per column.
        """
        if self.is_empty(text):
            return True
        plain = self.marker(text)
        if plain is not None:
            self.count(plain, column)
        return False

    def is_empty(self, text: str) -> bool:
        """Return whether a cell is blank, without counting it."""
        return _forms(text)[1] in self.blank

    def count(self, plain: str, column: str, cells: int = 1) -> None:
        """Count cells of a column that only look blank; ``plain`` is their text without surrounding spaces."""
        self.found.setdefault(column, Counter())[plain] += cells

    def marker(self, text: str) -> str | None:
        """Return the text of a cell without surrounding spaces if it only looks blank, and None otherwise."""
        plain, folded = _forms(text)
        return plain if folded in self.markers else None

    @property
    def texts(self) -> frozenset[str]:
        """Return the case-folded texts of cells that are blank or look so."""
        return self.markers | self.blank

    def warn(self, place: object, total: int) -> None:
        """Log the warnings of `warnings`."""
        for warning in self.warnings(place, total):
            log.warning("%s", warning)

    def warnings(self, place: object, total: int) -> list[str]:
        """Return a warning for each column that has cells which look blank.

        Args:
            place: File or split, for the message.
            total: Number of rows in it.
        """
        return [self._warning(column, counts, f"{place}: of {total} rows") for column, counts in self.found.items()]

    @staticmethod
    def _warning(column: str, counts: Counter[str], of_rows: str) -> str:
        names = ", ".join([*counts][:SHOWN]) + ", ..." * (len(counts) > SHOWN)
        count = counts.total()
        return (
            f"{of_rows}, {count} {'reads' if count == 1 else 'read'} {names} in the column {column}, as programs write "
            f"missing values: if they are, set data.source.blank to {[*counts]}"
        )


def _forms(text: str) -> tuple[str, str]:
    """Return a text without surrounding spaces, and its case-folded form if it is short: no marker is long."""
    plain = text.strip()
    return plain, plain.casefold() if len(plain) < 64 else plain
