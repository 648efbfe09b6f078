"""Data sets of the Hugging Face hub, and data sets that the `datasets` library has saved on disk."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from robusttune.data.images import ImageReader, UnreadableImageError, read_image
from robusttune.data.packs import Part
from robusttune.data.problems import Problems
from robusttune.data.remote import URL, Remote
from robusttune.data.sources.base import Record, Source, names_of_classes, to_table
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.extras import import_extra
from robusttune.data.sources.files import path_kind
from robusttune.data.sources.image_cells import (
    ImageCells,
    SeveralImages,
    check_several_images,
    holds_content,
    holds_text,
    is_embedded,
    stored_parts,
)
from robusttune.data.sources.label_cells import LabelColumn
from robusttune.data.sources.readers import as_text
from robusttune.data.sources.rows import Row
from robusttune.data.sources.split_names import SplitNames
from robusttune.data.stored_images import StoredImages
from robusttune.encoders.hub import PREFETCH, cached_commit, offline
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

log = logging.getLogger(__name__)

CELL = re.compile(r"(train|val|test|predict)/([0-9]+)(?:/([0-9]+))?(?:/([0-9]+))?")
ROWS = 100  # rows of image columns that are in memory at a time


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

    def __post_init__(self) -> None:
        check_several_images(self.several_images)

    @property
    def averages_images(self) -> bool:
        """Return whether the features of a row's images are averaged."""
        return self.several_images == "mean"

    @property
    def images(self) -> ImageReader:
        """Return a reader of the images in the image column."""
        return Cells(self)

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of a split, or None where the data set has no such split.

        A test split without labels is returned for ``predict`` instead of ``test``, unless another split is named for
        prediction.

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
        if name is None:
            return None
        data, where = self.data[name], f"{self.path}, {name}"
        self._check_columns(data, where, labelled=split != "predict")
        bad, blanks, rows = Problems(where, "rows"), Blanks(self.blank), len(data)
        texts, ids, labels = (self._cells(data, name) for name in (self.text_column, self.id_column, self.label_column))
        names = _names(data.features.get(self.label_column))
        column = LabelColumn(self.label_column, self.multilabel, None, blanks, names)
        images = self._image_names(data, split, self._cells_of_text(bad, blanks))
        records = [
            Record(
                self._id(ids[row], row, bad),
                images[row][0] if images[row] else None,
                self._text(texts[row], f"row {row}", bad, blanks),
                column.read(labels[row], f"row {row}", bad),
                images[row][1:] or None,
            )
            for row in range(rows)
        ]
        for warning in column.check(where):
            log.warning("%s", warning)
        bad.add_repeats((record.id, f"row {row}") for row, record in enumerate(records))
        bad.refuse(rows)
        blanks.warn(where, rows)
        return to_table(records)

    def class_names(self, table: pa.Table) -> list[str]:
        """Return all names of the `ClassLabel` feature, or the sorted names in ``table`` if there is none."""
        for data in self.data.values():
            names = _names(data.features.get(self.label_column))
            if names is not None:
                return list(names)
        return super().class_names(table)

    @cached_property
    def data(self) -> Any:
        """Load the data set, once.

        Returns:
            Mapping from the data set's own split names to its `datasets.Dataset` objects. A data set that was saved
            without splits is mapped from ``train``.

        Raises:
            RobustTuneError: If the data set cannot be loaded, is incomplete, or was prepared at another revision. The
                message gives the reason in one line.
        """
        datasets = import_extra("datasets", "huggingface")
        folder = user_path(self.path)
        saved = any(path_kind(folder / name) == "file" for name in ("dataset_dict.json", "state.json"))
        try:
            if saved:
                found = datasets.load_from_disk(str(folder))
            else:
                found = datasets.load_dataset(self.path, self.name, revision=self.revision)
        except Exception as error:  # hub, network and parsers raise many types
            reason = " ".join(str(error).split()).rstrip(".")
            remedy = "correct data.source.path, name and revision"
            remedy += f", or {PREFETCH}" if self.on_hub else ""
            raise RobustTuneError(f"{self.path} cannot be loaded ({reason:.240}): {remedy}") from None
        splits = found if isinstance(found, dict) else {"train": found}
        if self.on_hub:
            self._check_prepared(splits)
        return splits

    @cached_property
    def splits(self) -> dict[Split, str]:
        """Return the data set's own names of the splits that are used, by robusttune's split."""
        return self.split_names.find(self.path, self.data)

    @property
    def on_hub(self) -> bool:
        """Return whether `path` is a name on the hub rather than a local path."""
        return not self.path.startswith(("/", "./", "../", "~")) and path_kind(Path(self.path)) == "nothing"

    def _check_prepared(self, splits: dict[str, Any]) -> None:
        """Check the number of rows and the revision of the splits that the library has prepared.

        The library itself does not count the rows, and when offline it uses whichever revision is cached.

        Raises:
            RobustTuneError: If rows are missing, or the cached revision is another one.
        """
        commit = cached_commit(self.path, self.revision, "dataset")
        for name, data in splits.items():
            folder, rows = Path(data.cache_files[0]["filename"]).parent, data.info.splits[name].num_examples
            if len(data) != rows:
                raise RobustTuneError(f"{folder} has {len(data)} rows of {name}, not {rows}: remove it, and {PREFETCH}")
            if offline() and commit != folder.name and (commit or self.revision):
                raise RobustTuneError(
                    f"{self.path} was last prepared at {folder.name}, which is not {self.revision or 'main'}: "
                    "prefetch each revision into an HF_HOME of its own"
                )

    def _check_columns(self, data: Any, where: str, labelled: bool) -> None:
        needed = [*self.image_columns, self.text_column, self.label_column if labelled else None, self.id_column]
        missing = [name for name in needed if name is not None and name not in data.column_names]
        if missing:
            raise RobustTuneError(
                f"{where} has no column {', '.join(missing)} (it has {', '.join(data.column_names)}): set "
                "data.source.image_column, text_column or label_column to its names, null for a missing modality"
            )
        for column in self.image_columns:
            kind = data.features.arrow_schema.field(column).type
            if not (holds_content(kind) or holds_text(kind)):
                raise RobustTuneError(
                    f"the column {column} of {where} is of {data.features[column]}, not of images: "
                    "give another image_column, or cast it to datasets.Image"
                )

    @property
    def image_columns(self) -> list[str]:
        """Return the names of the image columns."""
        return [self.image_column] if isinstance(self.image_column, str) else self.image_column or []

    @property
    def _root(self) -> Path | str | None:
        """Return the folder or URL that image paths are relative to, or None if it is unknown."""
        root = self.image_root
        if root is None:
            return None if self.on_hub else user_path(self.path)
        return root if URL.match(root) else user_path(root)

    def _cells_of_text(self, bad: Problems, blanks: Blanks) -> ImageCells:
        """Return the conversion of image cells that hold texts."""
        return ImageCells(None, [], self._root, True, self.several_images, bad, blanks)

    def _image_names(self, data: Any, split: Split, images: ImageCells) -> list[list[str]]:
        """Return the names of the images of each row that are used. No image is decoded.

        Embedded images are named ``<split>/<row>``, those of further image columns ``<split>/<row>/<column>``, and
        further ones of a list ``<split>/<row>/<column>/<item>``.
        """
        names: list[list[str]] = [[] for _ in range(len(data))]
        for number, column in enumerate(self.image_columns):
            row = 0
            for batch in data.select_columns([column]).with_format("arrow").iter(ROWS):
                cells = batch[column]
                if holds_content(cells.type):
                    counts = _image_counts(cells)
                else:
                    counts = [len(stored_parts(c)) if is_embedded(c) else 0 for c in cells.to_pylist()]
                for cell, count in zip(cells, counts, strict=True):
                    if count:
                        names[row] += [_cell_name(split, row, number, item) for item in range(count)]
                    elif not holds_content(cells.type):
                        names[row] += images.names(Row(f"row {row}", {column: cell.as_py()}), [column])
                    row += 1
        return names if self.averages_images else [row_names[:1] for row_names in names]

    def _cells(self, data: Any, column: str | None) -> list[Any]:
        """Return the cells of a column without decoding images; None per row if there is no such column."""
        if column not in data.column_names:
            return [None] * len(data)
        cells: list[Any] = data.select_columns([column]).with_format("arrow")[:][column].to_pylist()
        return cells

    def _id(self, value: Any, row: int, bad: Problems) -> str:
        text = self._text(value, f"row {row}", bad, Blanks([]))
        if text is None and self.id_column is not None:
            bad.add(f"row {row}", "have no id", "give them ids, or set data.source.id_column to null")
        return text or (f"{row}" if self.id_column is None else f"row {row}")

    def _text(self, value: Any, where: str, bad: Problems, blanks: Blanks) -> str | None:
        text = as_text(value)
        if text is None:
            bad.add(f"{where}, {value!r:.40}", "have no text where it ought to be")
        return None if text is None or blanks.is_blank(text, str(self.text_column)) else text


class Cells(StoredImages):
    """A reader of the images of a `HuggingFace` source: those in its cells, and those that its cells name.

    Args:
        source: Data source that the images belong to.
    """

    def __init__(self, source: HuggingFace) -> None:
        super().__init__(source.remote)
        self.source = source

    def missing(self, names: Iterable[str | None]) -> list[str]:
        """Return the paths that do not exist, in order; the cells themselves exist."""
        return super().missing(name for name in names if name is not None and not CELL.fullmatch(name))

    def read(self, name: str) -> Image.Image:
        """Return an image as RGB.

        Raises:
            UnreadableImageError: If the image cannot be read.
        """
        part = self._part(name)
        if isinstance(part, str):
            return super().read(part)
        return read_image(io.BytesIO(part), f"the image in {name} of {self.source.path}")

    def content(self, name: str) -> bytes:
        """Return the encoded image."""
        part = self._part(name)
        return super().content(part) if isinstance(part, str) else part

    def digest(self, name: str) -> bytes | None:
        """Return a 16-byte hash of an image in a cell, or None for a file of its own."""
        part = self._part(name)
        if not isinstance(part, str):
            return hashlib.blake2b(part, digest_size=16).digest()
        if part == name:
            return super().digest(part)
        try:  # the cell names a file, which the records do not
            return hashlib.blake2b(super().content(part), digest_size=16).digest()
        except UnreadableImageError:
            return hashlib.blake2b(part.encode(), digest_size=16).digest()

    def _part(self, name: str) -> Part:
        """Return the image in a cell that a name refers to: its content, path or URL. Return other names."""
        found = CELL.fullmatch(name)
        if found is None:
            return name
        column = self.source.image_columns[int(found[3] or 0)]
        cell = self._splits[found[1]][int(found[2])][column][0].as_py()
        return next(islice(stored_parts(cell), int(found[4] or 0), None), b"")

    @cached_property
    def _splits(self) -> dict[str, Any]:
        columns, splits = self.source.image_columns, self.source.splits.items()
        return {split: self.source.data[name].select_columns(columns).with_format("arrow") for split, name in splits}


def _names(feature: Any) -> list[str] | None:
    """Return the class names of a `ClassLabel` feature, also within lists; None for other features."""
    while feature is not None and not hasattr(feature, "names"):
        feature = getattr(feature, "feature", None)
    return None if feature is None else list(feature.names)


def _is_unlabelled(table: pa.Table) -> bool:
    """Return whether no row of a split has a label. Test splits on the hub often have -1 as their label."""
    return names_of_classes(table) <= {"-1"}


def _cell_name(split: Split, row: int, column: int, item: int) -> str:
    """Return the name of an embedded image; see `HuggingFace._image_names`."""
    numbers = [column, item] if item else [column] if column else []
    return "/".join(map(str, [split, row, *numbers]))


def _image_counts(cells: pa.ChunkedArray) -> list[int]:
    """Return the number of embedded images of each cell. No image is decoded."""
    if any(is_list(cells.type) for is_list in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        lengths = pc.fill_null(pc.list_value_length(cells), 0).to_pylist()
        items = iter(_image_counts(pc.list_flatten(cells)))
        return [sum(islice(items, length)) for length in lengths]
    present = pc.is_valid(cells)
    if pa.types.is_struct(cells.type):
        parts = [field.name for field in cells.type if field.name in ("bytes", "path")]
        filled = [pc.is_valid(pc.struct_field(cells, part)) for part in parts]
        present = pc.and_(present, filled[0] if len(filled) == 1 else pc.or_(*filled))
    return [int(flag) for flag in present.to_pylist()]
