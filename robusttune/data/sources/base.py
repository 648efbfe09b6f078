"""What a data source gives: a table of records for each split, no pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from robusttune.data.images import ImageFiles, ImageReader
from robusttune.errors import RobustTuneError
from robusttune.types import Condition, Split


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


class Source(ABC):
    """An on-disk layout, or what takes its place. Making one checks that what it names is there.

    Attributes:
        multilabel: whether a sample may carry any number of classes (else exactly one).
    """

    multilabel: bool = False

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

    def class_names(self, train: pa.Table) -> list[str]:
        """Class names in label order: those of the training split, sorted."""
        return sorted({name for labels in train["labels"].to_pylist() for name in labels or []})

    def best_accuracy(self, condition: Condition) -> float | None:
        """The best accuracy in [0, 1] that any model can have under a condition, or None where it is unknown."""
        return None


def to_table(records: Iterable[Record]) -> pa.Table:
    """Records as an Arrow table: compact in memory, and not copied into forked worker processes."""
    columns = list(zip(*records, strict=True)) or [(), (), (), ()]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


def or_absent(value: str | None) -> str | None:
    """The value, or None where it is blank."""
    return value if value and value.strip() else None


def read_text(path: Path) -> str:
    """A text file as UTF-8, with or without a byte order mark, line ends as ``\\n``.

    Raises:
        RobustTuneError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RobustTuneError(f"{path} is not UTF-8 (byte {error.start}): convert it to UTF-8") from None
    except OSError as error:
        raise RobustTuneError(f"{path} cannot be read ({error.strerror}): check the file") from None
