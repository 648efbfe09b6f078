"""Rows of small tables, and the choice of rows: classes that are too rare are left out, large ones are cut."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Encoders = Literal["mobilenet_minilm", "demo_clip"]
LEAST = 6  # samples of a class: four to train with and two to test with in each split


class Row(NamedTuple):
    """One sample.

    Attributes:
        id: Unique name within the table, which is also the name of the image file.
        image: Function that returns the content of the image file.
        text: Text; empty if it is missing.
        label: Class, or the list of classes of a multi-label table.
        suffix: Ending of the image file.
    """

    id: str
    image: Callable[[], bytes]
    text: str
    label: str | list[str]
    suffix: str = ".png"

    @property
    def labels(self) -> list[str]:
        """Return the classes of the row, one or any number of them."""
        return [self.label] if isinstance(self.label, str) else self.label


@dataclass(frozen=True)
class SmallTable:
    """A table of the suite.

    Attributes:
        name: Name of its folder.
        content: Image, text and label of a row, in one line.
        packages: Names of the packages that it comes from.
        rows: All rows.
        per_class: Number of training rows of each class; all if None.
        encoders: Configuration of the encoders, `encoders/<name>.yaml`.
    """

    name: str
    content: str
    packages: tuple[str, ...]
    rows: list[Row]
    per_class: int | None = None
    encoders: Encoders = "mobilenet_minilm"

    @property
    def multilabel(self) -> bool:
        """Return whether a row may have any number of classes."""
        return isinstance(self.rows[0].label, list)

    def class_sizes(self) -> Counter[str]:
        """Return the number of rows of each class."""
        return Counter(label for row in self.rows for label in row.labels)


def order(rows: Iterable[Row], purpose: str) -> list[Row]:
    """Return rows in a random order that depends on their ids and the purpose alone."""
    return sorted(rows, key=lambda row: hashlib.blake2b(f"{purpose} {row.id}".encode(), digest_size=8).digest())


def frequent(rows: Iterable[Row], least: int = LEAST, most_classes: int | None = None) -> list[Row]:
    """Remove classes with fewer than `least` rows.

    Args:
        rows: Rows of one table.
        least: Smallest number of rows of a class.
        most_classes: Number of classes to keep, the most frequent ones; all if None.

    Returns:
        Rows that still have a class; other classes are removed from rows of multi-label tables.
    """
    rows = list(rows)
    sizes = Counter(label for row in rows for label in row.labels)
    in_order = sorted(sizes, key=lambda label: (-sizes[label], label))[:most_classes]
    kept = {label for label in in_order if sizes[label] >= least}
    return list(_with_classes(rows, kept))


def _with_classes(rows: Iterable[Row], kept: set[str]) -> Iterator[Row]:
    for row in rows:
        if isinstance(row.label, str):
            if row.label in kept:
                yield row
        elif left := sorted(kept.intersection(row.label)):
            yield row._replace(label=left)


def sample(rows: Iterable[Row], size: int) -> list[Row]:
    """Return at most `size` rows, drawn at random whatever their class."""
    return order(rows, "sample")[:size]


def at_most(rows: Iterable[Row], per_class: int) -> list[Row]:
    """Return at most `per_class` rows of each class of a single-label table, drawn at random."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in order(rows, "sample"):
        found[row.labels[0]].append(row)
    return [row for of_class in found.values() for row in of_class[:per_class]]
