"""Data sets of the Hugging Face hub, and data sets that the `datasets` library has saved on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from robusttune.data.images import ImageReader
from robusttune.data.problems import Problems
from robusttune.data.record_files import RecordWriter
from robusttune.data.remote import URL, Remote
from robusttune.data.sources.base import SCHEMA, Source, names_of_classes, to_batch
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.files import path_kind
from robusttune.data.sources.hugging_face_images import CellImages
from robusttune.data.sources.hugging_face_loading import TAR_FORMAT, StreamedSplits, expanded, load_splits
from robusttune.data.sources.hugging_face_records import RowReader, names_of
from robusttune.data.sources.hugging_face_stream import HuggingFaceStream, Stream
from robusttune.data.sources.image_cells import (
    ImageCells,
    SeveralImages,
    check_several_images,
    holds_content,
    holds_text,
)
from robusttune.data.sources.label_cells import LabelColumn
from robusttune.data.sources.repeated_ids import repeated
from robusttune.data.sources.split_names import SplitNames
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

log = logging.getLogger(__name__)

ROWS = 100  # rows that are in memory at a time, with their images


@dataclass(frozen=True)
class HuggingFace(Source):
    """A data set that the `datasets` library loads, described by the names of its columns.

    Classes have the order of the data set's `ClassLabel` feature if it has one, else alphabetical order.

    Args:
        path: Name on the hub, a folder of files that the library reads, or a folder made by ``save_to_disk``.
        name: Name of the data set's configuration, if it has several.
        revision: Commit, branch or tag of the data set on the hub.
        split_names: Names of the data set's splits for train, val, test and predict. A test split whose labels are all
            absent or -1 is used for prediction instead.
        image_column: Name of the image column, or of several columns; null for data without images. A column holds
            images, or what an image column of a `Table` holds.
        several_images: Use of a row with several images, see `Table`.
        text_column: Name of the text column; null for data without texts.
        label_column: Name of the label column, which holds class names, numbers of a `ClassLabel`, or lists of either.
        id_column: Name of the column of unique ids; by default, ids are the row numbers, counted from 0.
        multilabel: Flag, True if a sample may have any number of classes, False if it has exactly one.
        blank: Texts that count as an empty cell, see `Table`.
        image_root: Folder or URL that image paths in a column of texts are relative to and must stay within; by default
            the folder of a data set on disk.
        remote: Limits for images that are fetched from servers.
        files: Files of each of the data set's splits: paths, URLs, or patterns such as ``train-*.tar`` and
            ``https://example.org/train-{000..099}.tar``. ``path`` is then the name of their format, such as
            ``webdataset`` (tar files), ``parquet`` or ``json``. In tar files, columns are endings, such as ``jpg``,
            ``txt`` and ``cls``, and a file that a sample lacks is a missing cell.
        stream: Settings of a stream: training samples are read while training, and never as a whole. The other splits
            are loaded whole.

    Example:
        >>> HuggingFace("user/memes", text_column="caption").on_hub
        True
    """

    path: str
    name: str | None = None
    revision: str | None = None
    split_names: SplitNames = SplitNames()  # noqa: RUF009, a frozen default can be shared
    image_column: list[str] | str | None = "image"
    several_images: SeveralImages = "first"
    text_column: str | None = "text"
    label_column: str = "label"
    id_column: str | None = None
    multilabel: bool = False
    blank: list[str] | None = None
    image_root: str | None = None
    remote: Remote = Remote()  # noqa: RUF009
    files: dict[str, list[str] | str] | None = None
    stream: Stream | None = None

    def __post_init__(self) -> None:
        check_several_images(self.several_images)

    @property
    def averages_images(self) -> bool:
        """Return whether the features of a row's images are averaged."""
        return self.several_images == "mean"

    @property
    def images(self) -> ImageReader:
        """Return a reader of the images in the image column."""
        return CellImages(self._place_of, self.image_columns, self._cell, self.remote)

    @cached_property
    def training_stream(self) -> HuggingFaceStream | None:
        """Return the stream of training samples, or None if they are read as a table."""
        return None if self.stream is None else HuggingFaceStream(self, self.stream)

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of a split, or None where the data set has no such split.

        There are none of a stream. A test split without labels is returned for ``predict`` instead of ``test``, unless
        another split is named for prediction.

        Raises:
            RobustTuneError: If the data set cannot be loaded, lacks a column, or has rows that cannot be parsed.
        """
        if split == "predict" and "predict" not in self.splits:
            table = self._read("test")
            return table if table is not None and _is_unlabelled(table) else None
        table = self._read(split)
        return None if split == "test" and table is not None and _is_unlabelled(table) else table

    def _read(self, split: Split) -> pa.Table | None:
        name = self.splits.get(split)
        if name is None or (split == "train" and self.stream is not None):
            return None
        data, where = self.data[name], f"{self.path}, {name}"
        self.check_columns(data.column_names, data.features, where, labelled=split != "predict")
        reader = self.row_reader(where, split, data.features)
        batches = data.select_columns([column for column in self.used_columns if column in data.column_names])
        with RecordWriter(SCHEMA) as writer:
            first, filled = 0, set[str]()
            for rows in batches.with_format("arrow").iter(ROWS):
                writer.add(to_batch([*reader.records(rows, first)]))
                first += len(rows)
                filled |= {name for name in rows.column_names if rows[name].null_count < len(rows)}
            table = writer.table()
        if self._is_tar:
            self._check_endings(filled, where, labelled=split != "predict")
        for warning in reader.labels.check(where):
            log.warning("%s", warning)
        for repeat, row in repeated(table["id"]):
            at = f"{reader.place(repeat)}, {table['id'][repeat].as_py()!r} of {reader.place(row)}"
            reader.bad.add(at, "repeat an id", "make ids unique")
        reader.bad.refuse(len(table))
        reader.blanks.warn(where, len(table))
        return table

    def row_reader(self, where: str, split: Split, features: Any) -> RowReader:
        """Return the conversion of the rows of a split.

        Args:
            where: Name of the split in the data set, for messages.
            split: Split of the rows.
            features: Types of the columns, as `datasets.Features`; an empty dictionary if they are unknown.
        """
        bad, blanks = Problems(where, "rows"), Blanks(self.blank)
        images = ImageCells(None, [], self._root, True, self.several_images, bad, blanks)
        labels = LabelColumn(
            self.label_column, self.multilabel, None, blanks, names_of(features.get(self.label_column))
        )
        columns = (self.image_columns, self.text_column, self.id_column)
        return RowReader(split, *columns, images, self.averages_images, labels, blanks, bad)

    def class_names(self, table: pa.Table) -> list[str]:
        """Return all names of the `ClassLabel` feature, or the sorted names in ``table`` if there is none."""
        if self.training_stream is not None:
            return self.training_stream.class_names or super().class_names(table)
        for data in self.data.values():
            names = names_of(data.features.get(self.label_column))
            if names is not None:
                return list(names)
        return super().class_names(table)

    @cached_property
    def data(self) -> Any:
        """The splits of the data set by its own names: `datasets.Dataset` objects, loaded once, see `load_splits`."""
        return load_splits(self) if self.stream is None else StreamedSplits(self)

    @cached_property
    def splits(self) -> dict[Split, str]:
        """Return the data set's own names of the splits that are used, by robusttune's split."""
        return self.split_names.find(self.path, self.data)

    @property
    def on_hub(self) -> bool:
        """Return whether `path` is a name on the hub rather than a local path."""
        is_format = self.files is not None and "/" not in self.path
        is_local = self.path.startswith(("/", "./", "../", "~")) or path_kind(Path(self.path)) != "nothing"
        return not is_format and not is_local

    @property
    def data_files(self) -> dict[str, list[str]] | None:
        """Return the paths, URLs and patterns of the files of each split, or None to let the library find them."""
        if self.files is None:
            return None
        given = {split: [paths] if isinstance(paths, str) else paths for split, paths in self.files.items()}
        return {split: [path for pattern in paths for path in expanded(pattern)] for split, paths in given.items()}

    def check_columns(self, found: list[str], features: Any, where: str, labelled: bool) -> None:
        """Check that a split has the columns that are used, and images in those of images.

        Args:
            found: Names of all columns.
            features: Types of the columns, as `datasets.Features`; None if they are unknown.
            where: Name of the split in the data set, for messages.
            labelled: Whether samples need labels.

        Raises:
            RobustTuneError: A column is missing, or one of images holds something else.
        """
        missing = [name for name in self._needed_columns(labelled) if name not in found]
        if missing:
            raise RobustTuneError(
                f"{where} has no column {', '.join(missing)} (it has {', '.join(found)}): set "
                "data.source.image_column, text_column or label_column to its names, null for a missing modality"
            )
        for column in self.image_columns if features is not None else ():
            kind = features.arrow_schema.field(column).type
            if not (holds_content(kind) or holds_text(kind)):
                raise RobustTuneError(
                    f"the column {column} of {where} is of {features[column]}, not of images: "
                    "give another image_column, or cast it to datasets.Image"
                )

    def _check_endings(self, filled: set[str], where: str, labelled: bool) -> None:
        """Check that tar files have files of all endings, since a file that a sample lacks is a missing cell.

        Args:
            filled: Endings that at least one sample has.
            where: Name of the split in the data set, for messages.
            labelled: Whether samples need labels.

        Raises:
            RobustTuneError: No sample has a file of an ending.
        """
        absent = [name for name in self._needed_columns(labelled) if name not in filled]
        if absent:
            raise RobustTuneError(
                f"no sample of {where} has a file that ends in {' or '.join(absent)}: set data.source.image_column, "
                "text_column or label_column to the endings, null for a missing modality"
            )

    @property
    def _is_tar(self) -> bool:
        """Return whether the columns are endings of files in tar files, with the types of `tar_features`."""
        return self.path == TAR_FORMAT or (isinstance(self.data, StreamedSplits) and self.data.is_tar)

    @property
    def image_columns(self) -> list[str]:
        """Return the names of the image columns."""
        return [self.image_column] if isinstance(self.image_column, str) else self.image_column or []

    @property
    def used_columns(self) -> list[str]:
        """Return the names of all columns that are used, each once."""
        used = (*self.image_columns, self.text_column, self.id_column, self.label_column)
        return [*dict.fromkeys(column for column in used if column is not None)]

    def _needed_columns(self, labelled: bool) -> list[str]:
        """Return the names of the columns that a split must have: all that are used, or all but the label column."""
        return [name for name in self.used_columns if labelled or name != self.label_column]

    def _place_of(self, name: str) -> str:
        """Return the location of an embedded image, for messages."""
        return f"{name} of {self.path}"

    def _cell(self, split: str, row: int, column: str) -> Any:
        """Return a cell of an image column."""
        return self._image_cells[split][row][column][0].as_py()

    @cached_property
    def _image_cells(self) -> dict[Any, Any]:
        """Return the image columns of each split that is loaded whole."""
        whole = {split: name for split, name in self.splits.items() if self.stream is None or split != "train"}
        arrow = {split: self.data[name].with_format("arrow") for split, name in whole.items()}
        return {split: data.select_columns(self.image_columns) for split, data in arrow.items()}

    @property
    def _root(self) -> Path | str | None:
        """Return the folder or URL that image paths are relative to, or None if it is unknown."""
        root = self.image_root
        if root is None:
            return None if self.on_hub or self.files is not None else user_path(self.path)
        return root if URL.match(root) else user_path(root)


def _is_unlabelled(table: pa.Table) -> bool:
    """Return whether no row of a split has a label. Test splits on the hub often have -1 as their label."""
    return names_of_classes(table) <= {"-1"}
