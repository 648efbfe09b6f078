"""The interface of data sources: each returns one table of records per split, without reading any pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from robusttune.data.images import ImageFiles, ImageReader
from robusttune.data.record_files import RecordWriter
from robusttune.data.sources.files import path_kind
from robusttune.data.streaming.training_stream import TrainingStream
from robusttune.errors import RobustTuneError
from robusttune.types import Split, View

Key = TypeVar("Key", bound=Hashable)

CHUNK = 16_384  # records that are converted together


class Record(NamedTuple):
    """A sample whose image has not been read yet.

    Attributes:
        id: Identifier, unique within the split.
        image: Image name that the source's `ImageReader` understands, such as a path; None where the image is missing.
        text: Text, or None where it is missing.
        labels: Class names, exactly one in multi-class data; None where the sample is unlabelled.
        more_images: Names of further images, whose features are averaged with those of the first; None if there are
            none.

    Example:
        >>> Record("1", None, "a red circle", ["red circle"]).text
        'a red circle'
    """

    id: str
    image: str | None
    text: str | None
    labels: list[str] | None
    more_images: list[str] | None = None


SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.string()),
        ("text", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("more_images", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Published:
    """Published counts of a data set, which show whether a copy of it is complete.

    Args:
        samples: Number of samples, by split.
        classes: Number of classes in the training split, or in the test split if there is no training split.
        per_class: Number of samples per class, by split, for splits whose classes all have the same number.
        by_class: Number of samples, by split and class name.
        approximate: Greatest relative difference, in (0, 1), that complete copies have from the published count, by
            split. List only splits whose published count is rounded. Such a difference is reported as a note instead
            of an error.

    Example:
        >>> Published({"train": 67_970, "test": 22_716}, classes=101).samples["test"]
        22716
    """

    samples: dict[str, int] = field(default_factory=dict)
    classes: int | None = None
    per_class: dict[str, int] = field(default_factory=dict)
    by_class: dict[str, dict[str, int]] = field(default_factory=dict)
    approximate: dict[str, float] = field(default_factory=dict)


class Source(ABC):
    """A data set layout on disk, or a generator of samples, that provides one table of records per split.

    Constructors check that the files and folders they name exist, so a wrong path fails before any training.

    Attributes:
        multilabel: Flag, True if a sample may have any number of classes, False if it has exactly one.
        validates_on_test: Flag, True if the data set's own convention is to validate on the test samples.
    """

    multilabel: bool = False
    validates_on_test: bool = False

    @property
    def published(self) -> Published | None:
        """Return the published counts of the data set, or None where they are unknown."""
        return None

    @property
    def training_stream(self) -> TrainingStream | None:
        """Return the stream of training samples, or None if `read` returns them as a table."""
        return None

    @property
    def averages_images(self) -> bool:
        """Return whether records may have several images, whose features are averaged."""
        return False

    @property
    def images(self) -> ImageReader:
        """Return the reader of the images that the records name; by default, it treats the names as file paths."""
        return ImageFiles()

    @abstractmethod
    def read(self, split: Split) -> pa.Table | None:
        """Return the split's records as a table with the columns of `SCHEMA`, or None if there is no such split.

        Raises:
            RobustTuneError: If a file is missing or cannot be parsed. The message names the file and the row.
        """

    def class_names(self, table: pa.Table) -> list[str]:
        """Return the names of the classes that occur in a table of `SCHEMA`, in the order of their label indices.

        The order is alphabetical unless the data set defines its own.
        """
        return sorted(names_of_classes(table))

    def mask_rows(self, split: Split, ids: Sequence[str]) -> tuple[Sequence[int], int]:
        """Return the rows of samples in a published table of missing modalities; by default, each sample is a row.

        Args:
            split: Split of the samples.
            ids: Ids of all samples of the split.

        Returns:
            Row of each sample, from 0, and the number of rows of the table.
        """
        del split
        return range(len(ids)), len(ids)

    def bayes_accuracy(self, view: View) -> float | None:
        """Return the Bayes accuracy in [0, 1] of the modalities in a view, or None where it is unknown."""
        return None


def names_of_classes(table: pa.Table) -> set[str]:
    """Return the names of the classes that occur in a table of `SCHEMA`.

    Example:
        >>> sorted(names_of_classes(to_table([Record("1", None, "a", ["cat"]), Record("2", None, "b", None)])))
        ['cat']
    """
    chunks = table["labels"].chunks  # by itself each, since a column may be larger than memory
    return {name for labels in chunks for name in pc.unique(pc.list_flatten(labels)).to_pylist()}


def to_table(records: Iterable[Record]) -> pa.Table:
    """Convert records to an Arrow table, which is compact in memory and not copied into forked worker processes.

    The records are converted in chunks, so that an iterator of them never needs the memory of all. Many records are
    written to a file without a name that is mapped into memory, see `robusttune.data.record_files`.

    Example:
        >>> to_table([Record("1", "cat.jpg", None, ["cat"])]).column_names
        ['id', 'image', 'text', 'labels', 'more_images']
    """
    rest = iter(records)
    with RecordWriter(SCHEMA) as writer:
        while chunk := list(islice(rest, CHUNK)):
            writer.add(to_batch(chunk))
        return writer.table()


def to_batch(records: Sequence[Record]) -> pa.RecordBatch:
    """Convert some records to an Arrow batch.

    Example:
        >>> to_batch([Record("1", "cat.jpg", None, ["cat"])]).num_rows
        1
    """
    columns = zip(*records, strict=True)
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def none_if_blank(value: str | None) -> str | None:
    """Return the value, or None where it is None, empty or white space.

    Example:
        >>> none_if_blank("soup"), none_if_blank("  ")
        ('soup', None)
    """
    return value if value and value.strip() else None


def make_unique(names: Mapping[Key, str]) -> dict[Key, str]:
    """Make class names unique by adding the key in square brackets to repeated names: ``crane [n02012849]``.

    Prompts leave out the bracketed key, see `robusttune.types.prompt_name`.

    Args:
        names: Class names, by a key that is unique per class, such as a WordNet id.

    Example:
        >>> make_unique({1: "crane", 2: "crane", 3: "heron"})
        {1: 'crane [1]', 2: 'crane [2]', 3: 'heron'}
    """
    many = Counter(names.values())
    return {key: f"{name} [{key}]" if many[name] > 1 else name for key, name in names.items()}


def require_paths(*files: Path, folders: Iterable[Path] = (), hint: str) -> None:
    """Check that files and folders exist and have the right kind.

    Args:
        files: Paths that must be regular files.
        folders: Paths that must be folders.
        hint: Advice that ends the error message.

    Raises:
        RobustTuneError: If a path does not exist or has another kind.
    """
    required = [*((path, "file") for path in files), *((path, "folder") for path in folders)]
    for path, kind in required:
        found = path_kind(path)
        if found != kind:
            problem = {"folder": "is a folder", "nothing": "does not exist"}.get(found, f"is no {kind}")
            raise RobustTuneError(f"{path} {problem}: {hint}")
