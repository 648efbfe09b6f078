"""What a data source gives: a table of records for each split, no pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa

from robusttune.data.images import ImageFiles, ImageReader
from robusttune.data.sources.files import kind_of
from robusttune.errors import RobustTuneError
from robusttune.types import Split, View

Key = TypeVar("Key", bound=Hashable)


class Record(NamedTuple):
    """A sample before anything is read.

    Attributes:
        id: unique within the split.
        image: name by which the source's `ImageReader` finds it, such as a path, or None where the image is absent.
        text: the text, or None where it is absent.
        labels: names of its classes, exactly one in multi-class data; None where it is unlabelled.
    """

    id: str
    image: str | None
    text: str | None
    labels: list[str] | None


SCHEMA = pa.schema(
    [("id", pa.string()), ("image", pa.string()), ("text", pa.string()), ("labels", pa.list_(pa.string()))]
)


@dataclass(frozen=True)
class Published:
    """What a whole copy of a data set has, so that one can be told to be whole.

    Args:
        samples: in each split.
        classes: in the training split, or where there is none, in the test split.
        of_each_class: samples of every class, by split, where all classes have as many.
        by_class: samples of each class, by split.
        approximate: Splits whose number of samples is published as a round figure, and the share, in (0, 1), by which
            good copies differ from it. Such a difference is reported as a note instead of an error.
    """

    samples: dict[str, int] = field(default_factory=dict)
    classes: int | None = None
    of_each_class: dict[str, int] = field(default_factory=dict)
    by_class: dict[str, dict[str, int]] = field(default_factory=dict)
    approximate: dict[str, float] = field(default_factory=dict)


class Source(ABC):
    """An on-disk layout, or what takes its place. Making one checks that what it names is there.

    Attributes:
        multilabel: whether a sample may carry any number of classes (else exactly one).
        validates_on_test: whether, by the data set's own convention, validation is done on the test samples.
    """

    multilabel: bool = False
    validates_on_test: bool = False

    @property
    def published(self) -> Published | None:
        """What a whole copy has, where that is known."""
        return None

    @property
    def images(self) -> ImageReader:
        """Reads the images that records name: as files, if the source does not say otherwise."""
        return ImageFiles()

    @abstractmethod
    def read(self, split: Split) -> pa.Table | None:
        """The split's records, as a table of `SCHEMA`, or None where the layout has no such split.

        Raises:
            RobustTuneError: a file is missing or cannot be understood; it names the file and the row.
        """

    def class_names(self, table: pa.Table) -> list[str]:
        """Names of the classes that a table of `SCHEMA` has, in label order: sorted, or as the data set has them."""
        return sorted(names_of_classes(table))

    def best_accuracy(self, view: View) -> float | None:
        """The best accuracy in [0, 1] that any model can have of what is shown, or None where it is unknown."""
        return None


def names_of_classes(table: pa.Table) -> set[str]:
    """Names of the classes that a table of `SCHEMA` has."""
    return {name for labels in table["labels"].to_pylist() for name in labels or []}


def to_table(records: Iterable[Record]) -> pa.Table:
    """Records as an Arrow table: compact in memory, and not copied into forked worker processes."""
    columns = list(zip(*records, strict=True)) or [(), (), (), ()]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


def or_absent(value: str | None) -> str | None:
    """The value, or None where it is blank."""
    return value if value and value.strip() else None


def apart(names: Mapping[Key, str]) -> dict[Key, str]:
    """Names of classes, where namesakes have their keys in square brackets added: ``crane [n02012849]``.

    What stands in such brackets is no part of what a class is called, see `robusttune.types.prompt_name`.

    Args:
        names: by the key that tells the classes apart.
    """
    many = Counter(names.values())
    return {key: f"{name} [{key}]" if many[name] > 1 else name for key, name in names.items()}


def require(*files: Path, folders: Iterable[Path] = (), hint: str) -> None:
    """Check that files and folders are there, and that they are such.

    Raises:
        RobustTuneError: one is not; ``hint`` tells what to do.
    """
    wanted = [*((path, "file") for path in files), *((path, "folder") for path in folders)]
    for path, kind in wanted:
        found = kind_of(path)
        if found != kind:
            what = {"folder": "is a folder", "nothing": "does not exist"}.get(found, f"is no {kind}")
            raise RobustTuneError(f"{path} {what}: {hint}")
