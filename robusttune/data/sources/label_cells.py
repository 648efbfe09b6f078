"""Conversion of label cells to class names. A cell is a single name, a number, a list, or a list written as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from robusttune.data.problems import Problems
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.list_text import UnreadableListError, parse_list
from robusttune.data.sources.readers import as_text
from robusttune.data.sources.rows import Row
from robusttune.errors import RobustTuneError

SEPARATORS = ("|", ";", ",", "/")
BITS = (0, 1, "0", "1", "0.0", "1.0")


class PlainLabel(NamedTuple):
    """The class names of a label cell that has no problem and is not a list.

    Attributes:
        names: Class names, or None where the sample is unlabelled.
        is_blank: Flag, True if the cell is blank.
        text: Text of the cell without surrounding spaces, or None if it is blank or a number.
        marker: The same text if the cell only looks blank, or None.
    """

    names: list[str] | None
    is_blank: bool
    text: str | None
    marker: str | None


class LabelColumn:
    """A parser of one split's label column: `read` each cell in order, then `check` the column as a whole.

    Args:
        column: Name of the column, for messages.
        multilabel: Flag, True if a sample may have any number of classes, False if it has exactly one.
        separator: Text between the names of several classes in one cell, or None if several classes come as lists only.
        blanks: Test for blank cells.
        names: Class names in the order of their numbers, if cells hold class numbers.

    Example:
        >>> labels = LabelColumn("label", multilabel=True, separator="|", blanks=Blanks())
        >>> labels.read("soup|salad", "line 2", Problems("a.csv", "rows"))
        ['soup', 'salad']
    """

    def __init__(
        self,
        column: str,
        multilabel: bool,
        separator: str | None,
        blanks: Blanks,
        names: Sequence[str] | None = None,
    ) -> None:
        self.column = column
        self.columns = [column]
        self.multilabel = multilabel
        self.separator = separator
        self.blanks = blanks
        self.names = names
        self._texts: Counter[str] = Counter()  # text cells that are neither lists nor blank
        # Lengths of the lists while all of them hold only zeros and ones, or None once a cell does not.
        self._codes: set[int] | None = set()
        self._first_code: tuple[str, list[Any]] | None = None
        self._repeats = self._written_lists = 0

    def read_row(self, row: Row, bad: Problems) -> list[str] | None:
        """Return the class names of a row, or None where it is unlabelled or has no such column, see `read`."""
        return self.read(row.cells[self.column], row.where, bad) if self.column in row.cells else None

    def read(self, value: Any, where: str, bad: Problems) -> list[str] | None:
        """Return the class names of a cell, or None where the sample is unlabelled.

        In multi-label data, a blank cell is a sample without classes: the empty list. If the data set numbers its
        classes, a negative number is an unlabelled sample.

        Args:
            value: Content of the cell: a text, a number, a list of either, or None.
            where: Location of the row for messages, such as ``line 7``.
            bad: Collection of problems, extended if the cell cannot be parsed.
        """
        text = None if isinstance(value, list) else as_text(value)
        if text is not None and self.blanks.is_blank(text, self.column):
            return self.of_blank
        items: list[Any] | None
        try:
            items = value if isinstance(value, list) else parse_list(value) if isinstance(value, str) else None
        except UnreadableListError:
            bad.add(f"{where}, {value!r:.60}", f"have a list written as text in {self.column} that cannot be read")
            return None
        if items is not None:
            return self._read_list(items, isinstance(value, str), where, bad)
        self._codes = None
        if text is None:
            bad.add(f"{where}, {value!r:.40}", f"have no class as {self.column}")
            return None
        if self.names is not None or not isinstance(value, str):
            return self._read_number(value, where, bad)
        self._texts[text.strip()] += 1
        if self.multilabel and self.separator is None:
            bad.add(where, f"have no list as {self.column}", "set data.source.multilabel to false")
            return None
        parts = text.split(self.separator) if self.multilabel else [text]
        return self._check_repeats([part.strip() for part in parts if part.strip()], where, value, bad)

    @property
    def of_blank(self) -> list[str] | None:
        """Return the class names of a blank cell."""
        return [] if self.multilabel else None

    @property
    def may_be_codes(self) -> bool:
        """Return whether all cells so far may be multi-hot codes."""
        return self._codes is not None

    def plain(self, value: Any) -> PlainLabel | None:
        """Read a cell without counting it; return None if it is a list or has a problem.

        Args:
            value: Content of the cell: a text or a number.
        """
        bad, blanks = Problems("", ""), self.blanks.copy()
        alone = LabelColumn(self.column, self.multilabel, self.separator, blanks, self.names)
        names = alone.read(value, "", bad)
        if bad or alone._first_code is not None or alone._written_lists:
            return None
        text = next(iter(alone._texts), None)
        marker = next(iter(blanks.found.get(self.column, ())), None)
        return PlainLabel(names, alone.may_be_codes, text, marker)

    def count(self, cells: Iterable[tuple[PlainLabel, int]]) -> None:
        """Count cells as if `read` had read them.

        Args:
            cells: Distinct cells in the order of their first appearance, and the number of each.
        """
        for label, number in cells:
            if label.marker is not None:
                self.blanks.count(label.marker, self.column, number)
            if label.text is not None:
                self._texts[label.text] += number
            if not label.is_blank:
                self._codes = None

    def check(self, place: object) -> list[str]:
        """Check the column as a whole after its last row has been read.

        Call this before `Problems.refuse`: a multi-hot column also makes problems in single rows, and its own message
        is more useful.

        Args:
            place: File or split, for messages.

        Returns:
            Warnings about lists that were written as text, and about cells that seem to name several classes but are
            read as one.

        Raises:
            RobustTuneError: If the column is a multi-hot encoding, which does not name classes.
        """
        if self._codes and len(self._codes) == 1 and min(self._codes) > 1 and (self.names is None or self._repeats):
            where, first = self._first_code or ("", [])
            raise RobustTuneError(
                f"{place}: the column {self.column} holds lists of {min(self._codes)} zeros and ones each (the first: "
                f"{where}, {first!r:.60}), which is a multi-hot code and names no class: write the names of each "
                "sample's classes instead"
            )
        warnings = self._separator_warnings(place)
        if self._written_lists:
            message = f"lists written as text in the column {self.column} are read as lists, of"
            warnings.insert(0, f"{place}: {message} {self._written_lists} rows")
        return warnings

    def _read_list(self, items: list[Any], was_text: bool, where: str, bad: Problems) -> list[str] | None:
        if self._codes is not None:
            is_code = all(not isinstance(item, list | dict) and item in BITS for item in items)
            self._codes = {*self._codes, len(items)} if is_code else None
            self._first_code = self._first_code or (where, items)
        if not self.multilabel:
            how = "a list written as text" if was_text else "a list"
            bad.add(where, f"have {how} as {self.column}", "set data.source.multilabel to true")
            return None
        self._written_lists += was_text
        labels = [self._name(item) for item in items]
        if any(label is None or not label.strip() for label in labels):
            bad.add(f"{where}, {items!r:.40}", f"have an entry that is no class in the list of {self.column}")
        return self._check_repeats([label.strip() for label in labels if label and label.strip()], where, items, bad)

    def _read_number(self, value: Any, where: str, bad: Problems) -> list[str] | None:
        """Return the class name of a cell that holds a class number, or None where it is unlabelled or invalid."""
        if isinstance(value, int) and value < 0 and self.names is not None:  # the hub marks unlabelled samples with -1
            return None
        if self.multilabel and self.separator is None:
            bad.add(where, f"have no list as {self.column}", "set data.source.multilabel to false")
            return None
        label = self._name(value)
        if label is None:
            bad.add(f"{where}, {value!r:.40}", f"have no class as {self.column}")
            return None
        return [label]

    def _name(self, item: Any) -> str | None:
        if self.names is None:
            return as_text(item)
        return self.names[item] if isinstance(item, int) and 0 <= item < len(self.names) else None

    def _check_repeats(self, labels: list[str], where: str, value: Any, bad: Problems) -> list[str]:
        if len({*labels}) < len(labels):
            self._repeats += 1
            bad.add(f"{where}, {value!r:.60}", f"name a class twice in {self.column}", "name each class once")
        return labels

    def _separator_warnings(self, place: object) -> list[str]:
        """Return a warning if cells seem to name several classes but are read as one."""
        active = self.separator if self.multilabel else None
        whole = Counter({text: count for text, count in self._texts.items() if active is None or active not in text})
        is_unused = active is not None and len(whole) == len(self._texts)
        for separator in SEPARATORS:
            several = [text for text in whole if separator in text]
            if not several or not (is_unused or _recombine(whole, separator)):
                continue
            settings = [] if self.multilabel else ["data.source.multilabel to true"]
            settings += [] if separator == self.separator else [f"data.source.label_separator to {separator!r}"]
            count = sum(self._texts[text] for text in several)
            rest = f" and {'none holds' if is_unused else 'not'} {active!r}" if active else ""
            advice = "store lists of names" if self.separator is None else f"set {' and '.join(settings)}"
            return [
                f"{place}: of the labels in the column {self.column} {count} hold {separator!r}{rest} (the first: "
                f"{several[0]!r:.60}), and each is the name of one class: if they name several, {advice}"
            ]
        return []


def _recombine(texts: Counter[str], separator: str) -> bool:
    """Return whether texts split into few parts that recur in several texts, as class names in lists do.

    The parts of a single class name that contains the separator, such as a comma, do not recur.
    """
    parts = [{part.strip() for part in text.split(separator)} for text in texts]
    counts = Counter(part for found in parts for part in found)
    shared = any(counts[part] > 1 for found in parts if len(found) > 1 for part in found)
    return shared and len(counts) <= len(texts)
