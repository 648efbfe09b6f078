"""Detection of blank table cells: empty ones, those that the user lists, and those that only look blank."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

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

    def is_blank(self, text: str, column: str) -> bool:
        """Return whether a cell is blank, and count it if it only looks blank.

        Args:
            text: Text of the cell.
            column: Name of its column; counts are kept per column.
        """
        plain = text.strip()
        folded = plain.casefold() if len(plain) < 64 else plain  # no marker is that long
        if folded in self.blank:
            return True
        if folded in self.markers:
            self.found.setdefault(column, Counter())[plain] += 1
        return False

    def warn(self, place: object, total: int) -> None:
        """Log a warning for each column that has cells which look blank.

        Args:
            place: File or split, for the message.
            total: Number of rows in it.
        """
        for column, counts in self.found.items():
            names = ", ".join([*counts][:SHOWN]) + ", ..." * (len(counts) > SHOWN)
            count = counts.total()
            log.warning(
                "%s: of %d rows, %d %s %s in the column %s, as programs write missing values: "
                "if they are, set data.source.blank to %s",
                *(place, total, count, "reads" if count == 1 else "read", names, column, [*counts]),
            )
