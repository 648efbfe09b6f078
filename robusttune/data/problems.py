"""A collector of problems in many rows, which reports them in one sentence with counts."""

from __future__ import annotations

from collections.abc import Iterable

from robusttune.errors import RobustTuneError


class Problems:
    """The problems of one file or split, grouped by kind.

    Args:
        place: File or split that the problems belong to.
        unit: Name of its parts, in the plural, such as ``rows``.

    Attributes:
        found: Locations of each problem, by its description and its remedy.

    Example:
        >>> problems = Problems("captions.csv", "rows")
        >>> problems.add("line 7", "have no text")
        >>> problems.counts(total=20)
        'captions.csv: of 20 rows, 1 have no text (the first: line 7)'
    """

    def __init__(self, place: object, unit: str) -> None:
        self.place = place
        self.unit = unit
        self.found: dict[tuple[str, str], list[str]] = {}

    def add(self, at: str, what: str, remedy: str = "repair or remove them") -> None:
        """Add a problem of one unit.

        Args:
            at: Location of the unit, such as ``line 7``.
            what: Description of the problem, a phrase that continues "3 rows ...".
            remedy: Advice for the user.
        """
        self.found.setdefault((what, remedy), []).append(at)

    def take(self, other: Problems) -> int:
        """Move the problems of another collection to the end of this one, and return their number."""
        count = len(other)
        for kind, places in other.found.items():
            self.found.setdefault(kind, []).extend(places)
        other.found.clear()
        return count

    def add_repeats(self, ids: Iterable[tuple[str, str]], what: str = "an id") -> None:
        """Add a problem for each id that was given before.

        Args:
            ids: Pairs of an id and its location, such as ``line 7``.
            what: Noun for the ids in the message.
        """
        first: dict[str, str] = {}
        for sample_id, where in ids:
            if first.setdefault(sample_id, where) != where:
                at = f"{where}, {sample_id!r} of {first[sample_id]}"
                self.add(at, f"repeat {what}", f"make {what.split()[-1]}s unique")

    def __len__(self) -> int:
        return sum(map(len, self.found.values()))

    def counts(self, total: int) -> str:
        """Return a sentence with the count of each problem and its first location.

        Args:
            total: Number of all units, including those without a problem.
        """
        parts = [f"{len(at)} {what} (the first: {at[0]:.300})" for (what, _), at in self.found.items()]
        return f"{self.place}: of {total} {self.unit}, {', '.join(parts)}"

    def refuse(self, total: int) -> None:
        """Raise an error if there are problems, or if there are no units at all.

        Args:
            total: Number of all units, including those without a problem.

        Raises:
            RobustTuneError: A problem was found, or ``total`` is 0. The message has the counts and the remedies.
        """
        if not total:
            raise RobustTuneError(f"{self.place} has no {self.unit}: give it some, or leave it out")
        if self.found:
            remedies = dict.fromkeys(remedy for _, remedy in self.found)
            raise RobustTuneError(f"{self.counts(total)}: {'; '.join(remedies)}")
