"""Cells that stand for nothing: empty ones, those that the user lists, and those that only look like it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

log = logging.getLogger(__name__)

# What pandas, R, Excel and databases write for a missing value; compared without case.
MARKERS = frozenset(
    ("nan", "-nan", "none", "null", "nil", "nat", "n/a", "na", "<na>", "#n/a", "#na", "#n/a n/a", "(null)", "\\n")
)
SHOWN = 5


class Blanks:
    """The texts that count as an empty cell, and a count of those that look like one but do not.

    Args:
        blank: Texts that count as blank beside empty ones, compared without case and surrounding spaces. None for none,
            and then texts that programs write for missing values are counted, see `warn`.

    Example:
        >>> Blanks(["n/a"]).is_blank(" N/A ", "text")
        True
    """

    def __init__(self, blank: Sequence[str] | None = None) -> None:
        self.blank = {text.strip().casefold() for text in blank or ()} | {""}
        self.markers = MARKERS if blank is None else frozenset()
        self.found: dict[str, Counter[str]] = {}

    def is_blank(self, text: str, column: str) -> bool:
        """Return whether a cell of a column is blank."""
        plain = text.strip()
        folded = plain.casefold() if len(plain) < 64 else plain  # longer texts are no marker
        if folded in self.blank:
            return True
        if folded in self.markers:
            self.found.setdefault(column, Counter())[plain] += 1
        return False

    def warn(self, place: object, total: int) -> None:
        """Log a warning for each column in which cells look blank.

        Args:
            place: The file or split, for the message.
            total: Number of its rows.
        """
        for column, counts in self.found.items():
            names = ", ".join([*counts][:SHOWN]) + ", ..." * (len(counts) > SHOWN)
            count = counts.total()
            log.warning(
                "%s: of %d rows, %d %s %s in the column %s, as programs write missing values: "
                "if they are, set data.source.blank to %s",
                *(place, total, count, "reads" if count == 1 else "read", names, column, [*counts]),
            )
