"""The user's own data in tables: one per split, as JSONL, JSON, CSV, TSV, Excel, Parquet or Arrow files."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa

from robusttune.counting import counted
from robusttune.data.images import ImageReader
from robusttune.data.kept_files import key_of_files, settled
from robusttune.data.packs import Packing
from robusttune.data.problems import Problems
from robusttune.data.record_files import KeptByOthersError, RecordWriter, load_records
from robusttune.data.remote import SCHEMES, URL, Remote, missing_package
from robusttune.data.sources.base import SCHEMA, Source, names_of_classes, require_paths
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.csv_file import delimiter_setting
from robusttune.data.sources.files import path_kind
from robusttune.data.sources.image_cells import ImageCells, SeveralImages, check_several_images
from robusttune.data.sources.label_cells import LabelColumn
from robusttune.data.sources.label_columns import LabelColumns
from robusttune.data.sources.readers import read_rows
from robusttune.data.sources.rows import TableOptions
from robusttune.data.sources.table_batches import TableBatches, add_repeats
from robusttune.data.sources.table_files import PATTERN, ending_of, table_files
from robusttune.data.sources.table_records import OpenedTable, RecordReader, require_columns
from robusttune.data.sources.table_stream import TableStream
from robusttune.data.sources.text_template import TextTemplate
from robusttune.data.stored_images import StoredImages
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

FORMAT = 1  # increase it when the same table would give other records
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table(Source):
    """A data set in tables, one per split, with one sample per row. A blank cell is a missing modality.

    Args:
        train: Table of training samples. Its ending, in lower or upper case, is its format: ``.csv`` or ``.tsv`` (with
            a header), ``.jsonl``, ``.json``, ``.parquet``, ``.arrow``, ``.feather`` or ``.xlsx``; text formats also
            with ``.gz`` or ``.zst``. A folder or a pattern such as ``train-*.parquet`` is all files in it, by name.
        val: Table of validation samples; without it, a part of ``train`` is held out.
        test: Table of test samples.
        predict: Table of samples to predict; it needs no labels.
        image_root: Folder that image paths are relative to and must stay within, or a URL such as ``s3://bucket/photos``
            that they are appended to. By default it is the table's own folder, and absolute paths may then lead
            anywhere.
        image_column: Name of the image column, or of several columns; null for a table without images. A cell is a
            path, a URL (``file``, ``http``, ``https``, or one that fsspec reads, such as ``s3``), the image itself
            (bytes, a dictionary with ``bytes`` and ``path``, base64 text, or a data URL), or a list of these.
        several_images: Use of a row with several images: ``first`` takes the first one, ``mean`` averages the features
            of all of them, which an image encoder computes one by one.
        text_column: Name of the column with texts; null for a table without texts.
        text_template: Template that joins several columns to the text, such as ``{title}. {description}``, in place of
            ``text_column``. A blank column is left out with the text around it, and ``{{`` is a literal brace.
        label_column: Name of the column with class names. In multi-label data, a cell is a list, a list written as text
            (in Python's, NumPy's or JSON's notation) or names joined by ``label_separator``; a blank cell is a sample
            without classes.
        label_columns: Names of columns with 0 or 1 for each class, in place of ``label_column``. A sample has exactly
            one 1, or any number of them in multi-label data.
        id_column: Name of the column with unique ids; by default, ids are the row numbers, counted from 1.
        multilabel: Flag, True if a sample may have any number of classes, False if it has exactly one.
        label_separator: Text between the names of several classes in one cell.
        blank: Texts that count as an empty cell, compared without case and surrounding spaces. By default only empty
            cells are blank, and a warning counts cells that look blank (``nan``, ``None``, ``N/A``, ...). An empty list
            has the same effect without the warning.
        delimiter: Character between the cells of ``.csv`` and ``.tsv`` tables, or ``tab``; by default it is detected.
        sheet: Name of the sheet of ``.xlsx`` tables; by default the one with the name of the split (``train``, ``val``,
            ``test``, ``predict``), or the only one.
        remote: Limits for images that are fetched from servers.

    Raises:
        RobustTuneError: If no table is given, a table does not exist or has another extension, or a setting is invalid.
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None
    predict: str | None = None
    image_root: str | None = None
    image_column: list[str] | str | None = "image"
    several_images: SeveralImages = "first"
    text_column: str | None = "text"
    text_template: str | None = None
    label_column: str | None = "label"
    label_columns: list[str] | None = None
    id_column: str | None = None
    multilabel: bool = False
    label_separator: str = "|"
    blank: list[str] | None = None
    delimiter: str | None = None
    sheet: str | None = None
    remote: Remote = Remote()  # noqa: RUF009, a frozen default can be shared

    def __post_init__(self) -> None:
        paths = {split: getattr(self, split) for split in ("train", "val", "test", "predict")}
        given = {split: user_path(path) for split, path in paths.items() if path is not None}
        if not given:
            raise RobustTuneError("no table is given: set data.source.train, and val or test where there are any")
        for split, path in given.items():
            if path_kind(path) in ("nothing", "other") and not PATTERN.intersection(path.name):
                require_paths(path, hint=f"set data.source.{split} to a table")
        endings = {ending_of(file) for path in given.values() for file in table_files(path)}
        self._check_settings(endings)
        if not self.label_separator:
            raise RobustTuneError("data.source.label_separator is empty: set the separator between class names")
        root = self.image_root
        if root is not None and not URL.match(root) and path_kind(user_path(root)) != "folder":
            raise RobustTuneError(f"{root} is no folder: set data.source.image_root to that of the images")

    @property
    def averages_images(self) -> bool:
        """Return whether the features of a row's images are averaged."""
        return self.several_images == "mean"

    @property
    def images(self) -> ImageReader:
        """Return a reader of images in files, in the table's cells, and on servers."""
        return StoredImages(self.remote)

    def _check_settings(self, endings: set[str]) -> None:
        """Check settings that exclude each other, or have no effect on tables with these endings."""
        delimiter_setting(self.delimiter)
        check_several_images(self.several_images)
        for name, kinds in {"delimiter": {".csv", ".tsv"}, "sheet": {".xlsx"}}.items():
            if getattr(self, name) is not None and not endings & kinds:
                raise RobustTuneError(
                    f"data.source.{name} is set, and no table is {' or '.join(sorted(kinds))}: remove it"
                )
        for single, several in (("text_column", "text_template"), ("label_column", "label_columns")):
            value, default = getattr(self, single), getattr(Table, single)
            if getattr(self, several) is not None and value not in (None, default):
                raise RobustTuneError(f"data.source.{single} and {several} are both set: remove one of them")
        if self.text_template is not None:
            TextTemplate(self.text_template)
        if self.label_column is None and self.label_columns is None:
            raise RobustTuneError("data.source.label_column is null: leave it out, or give label_columns")
        if self.label_columns is not None and len({*self.label_columns}) != max(len(self.label_columns), 1):
            raise RobustTuneError(
                "data.source.label_columns has no name, or one twice: name the column of each class once"
            )

    def class_names(self, table: pa.Table) -> list[str]:
        """Return the names of the classes that occur: in the order of ``label_columns``, or in alphabetical order."""
        found = names_of_classes(table)
        return sorted(found) if self.label_columns is None else [name for name in self.label_columns if name in found]

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of a split, or None where no table is given for it.

        Raises:
            RobustTuneError: If the table cannot be read, lacks a column, or has rows that cannot be parsed.
        """
        if getattr(self, split) is None:
            return None
        key = self._key(split)
        found = None if key is None else load_records(key)
        if found is None:
            try:
                return self._read(split, key)
            except KeptByOthersError:  # another process has read the table meanwhile
                found = load_records(str(key))
        if found is None:
            return self._read(split, None)
        for warning in found.warnings:
            log.warning("%s", warning)
        _say(found.note)
        return found.table

    def _read(self, split: Split, key: str | None) -> pa.Table:
        """Read the records of a split from its table, and keep them in a file with the given key."""
        blanks = Blanks(self.blank)
        labels = self._labels(blanks)
        opened = self._open(split, blanks, labels.columns, labels)
        path, found, bad = opened.path, opened.found, opened.reader.bad
        batches = TableBatches(opened)
        with RecordWriter(SCHEMA, key) as writer:
            with opened.packing:
                for batch in batches:
                    writer.add(batch)
            table = writer.table()
            if not batches.unparsed_rows:
                require_columns(path, found, [*self.inputs, *(labels.columns if split != "predict" else ())])
            warnings = labels.check(path)
            for warning in warnings:
                log.warning("%s", warning)
            if self.id_column is not None:
                add_repeats(table["id"], lambda: self._open(split, Blanks(self.blank), labels.columns, None).found, bad)
            bad.refuse(batches.total)
            more = blanks.warnings(path, batches.total)
            for warning in more:
                log.warning("%s", warning)
            note = f"{path}: {found.decision}; {counted(batches.total, 'row')}" if found.decision else ""
            _say(note)
            if key is not None and not batches.has_packs and not opened.packing.is_used:  # packs may be removed
                if self._key(split) != key:
                    raise RobustTuneError(f"{path} changed while it was read: wait until nothing writes to it any more")
                writer.keep([*warnings, *more], note)
            return table

    def _key(self, split: Split) -> str | None:
        """Return the key of the kept records of a split, or None if its table has just been changed."""
        path = user_path(getattr(self, split))
        files = table_files(path)
        others = ("train", "val", "test", "predict", "remote")
        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in others}
        root = self._root(path)
        packages = [scheme for scheme in SCHEMES if missing_package(scheme) is None]
        state = f"{FORMAT} {split} {settings} {root if isinstance(root, str) else root.absolute()} {packages}"
        key = key_of_files(path, files, state)
        return key if settled(files) else None

    def stream(self, split: Split, columns: Collection[str] = ()) -> TableStream:
        """Return the rows of a split to iterate over, in constant memory and without their labels.

        Args:
            split: Split that has a table.
            columns: Names of further columns, whose cells are returned with each row.

        Raises:
            RobustTuneError: If a file as a whole cannot be read; while iterating: also if the table lacks a column.
        """
        return TableStream(self._open(split, Blanks(self.blank), columns, None), [*self.inputs, *columns])

    @property
    def inputs(self) -> list[str]:
        """Return the names of the columns of images, texts and ids."""
        texts = [self.text_column] if self.text_template is None else TextTemplate(self.text_template).columns
        return [column for column in (*self._image_columns, *texts, self.id_column) if column is not None]

    def _open(
        self, split: Split, blanks: Blanks, columns: Collection[str], labels: LabelColumn | LabelColumns | None
    ) -> OpenedTable:
        """Open the table of a split; ``columns`` are read in addition to `inputs`."""
        path = user_path(getattr(self, split))
        bad, unparsed = Problems(path, "rows"), Problems(path, "rows")
        options = TableOptions(delimiter_setting(self.delimiter), self.sheet, split)
        found = read_rows(path, unparsed, [*self.inputs, *columns], options)
        # They determine which images are packed.
        settings = f"{self._image_columns} {self.several_images} {self.blank} {options}"
        packing = Packing(path, table_files(path), settings)
        own_root = self.image_root is not None
        images = ImageCells(packing, self._image_columns, self._root(path), own_root, self.several_images, bad, blanks)
        text = self.text_column if self.text_template is None else TextTemplate(self.text_template)
        reader = RecordReader(self.id_column, images, text, labels, blanks, bad)
        return OpenedTable(path, found, unparsed, reader, packing)

    @property
    def _image_columns(self) -> list[str]:
        """Return the names of the image columns."""
        return [self.image_column] if isinstance(self.image_column, str) else self.image_column or []

    def _root(self, table: Path) -> Path | str:
        """Return the folder or URL that the image paths of a table are relative to."""
        if self.image_root is None:
            return path_of_images(table)
        return self.image_root if URL.match(self.image_root) else user_path(self.image_root)

    def _labels(self, blanks: Blanks) -> LabelColumn | LabelColumns:
        if self.label_columns is not None:
            return LabelColumns(self.label_columns, self.multilabel, blanks)
        return LabelColumn(str(self.label_column), self.multilabel, self.label_separator, blanks)


def path_of_images(table: Path) -> Path:
    """Return the folder that image paths are relative to by default: that of the table's files."""
    return table if path_kind(table) == "folder" else table.parent


def _say(line: str) -> None:
    """Log a line on the first rank only, unless it is empty."""
    if line:  # Lightning is imported here, since reading a table does not need it
        from lightning.pytorch.utilities import rank_zero_info

        rank_zero_info(line)
