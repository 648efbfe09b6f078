"""Things that are wrong in many places: counted by what is wrong, told in one sentence."""

from __future__ import annotations

from collections.abc import Iterable

from robusttune.errors import RobustTuneError


class Problems:
    """What is wrong with which rows of one file or split.

    Args:
        place: the file or split.
        unit: what it consists of, such as ``rows``.
    """

    def __init__(self, place: object, unit: str) -> None:
        self.place = place
        self.unit = unit
        self.found: dict[tuple[str, str], list[str]] = {}

    def add(self, at: str, what: str, remedy: str = "mend or remove them") -> None:
        """Something is wrong at one of the units."""
        self.found.setdefault((what, remedy), []).append(at)

    def add_repeats(self, ids: Iterable[tuple[str, str]], what: str = "an id") -> None:
        """Something is wrong where an id comes again.

        Args:
            ids: with the place of each, such as ``line 7``.
            what: they are.
        """
        first: dict[str, str] = {}
        for sample_id, where in ids:
            if first.setdefault(sample_id, where) != where:
                at = f"{where}, {sample_id!r} of {first[sample_id]}"
                self.add(at, f"repeat {what}", f"make {what.split()[-1]}s unique")

    def __len__(self) -> int:
        return sum(map(len, self.found.values()))

    def counts(self, total: int) -> str:
        """How many each thing is wrong with, and the first of them.

        Args:
            total: units, those included with which nothing is wrong.
        """
        parts = [f"{len(at)} {what} (the first: {at[0]:.300})" for (what, _), at in self.found.items()]
        return f"{self.place}: of {total} {self.unit}, {', '.join(parts)}"

    def refuse(self, total: int) -> None:
        """Raise if anything was found, or there is nothing.

        Raises:
            RobustTuneError: with the `counts`, and what to do about each.
        """
        if not total:
            raise RobustTuneError(f"{self.place} has no {self.unit}: give it some, or leave it out")
        if self.found:
            remedies = dict.fromkeys(remedy for _, remedy in self.found)
            raise RobustTuneError(f"{self.counts(total)}: {'; '.join(remedies)}")
