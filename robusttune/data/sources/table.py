"""The user's own data in tables: one JSONL, CSV or Parquet file per split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Record, Source, require_paths, to_table
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.files import path_kind
from robusttune.data.sources.image_cells import image_path
from robusttune.data.sources.label_cells import LabelColumn
from robusttune.data.sources.readers import READERS, cell_text, read_rows
from robusttune.data.sources.rows import Row, Rows
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split


@dataclass(frozen=True)
class Table(Source):
    """A data set in tables, one per split, with one sample per row. A blank cell is a missing modality.

    Args:
        train: Table of training samples. Its extension, in lower or upper case, is its format: ``.jsonl``, ``.csv``
            (with a header; the delimiter is a comma, semicolon, tab or vertical bar) or ``.parquet``.
        val: Table of validation samples; without it, a part of ``train`` is held out.
        test: Table of test samples.
        predict: Table of samples to predict; it needs no labels.
        image_root: Folder that image paths are relative to and must stay within. By default it is the table's own
            folder, and absolute paths may then lead anywhere.
        image_column: Name of the column with paths of image files; null for a table without images.
        text_column: Name of the column with texts; null for a table without texts.
        label_column: Name of the column with class names. In multi-label data, a cell is a list, a list written as text
            (in Python's, NumPy's or JSON's notation) or names joined by ``label_separator``; a blank cell is a sample
            without classes.
        id_column: Name of the column with unique ids; by default, ids are the row numbers, counted from 1.
        multilabel: Flag, True if a sample may have any number of classes, False if it has exactly one.
        label_separator: Text between the names of several classes in one cell.
        blank: Texts that count as an empty cell, compared without case and surrounding spaces. By default only empty
            cells are blank, and a warning counts cells that look blank (``nan``, ``None``, ``N/A``, ...). An empty list
            has the same effect without the warning.

    Raises:
        RobustTuneError: If no table is given, a table does not exist or has another extension, or a setting is invalid.
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None
    predict: str | None = None
    image_root: str | None = None
    image_column: str | None = "image"
    text_column: str | None = "text"
    label_column: str = "label"
    id_column: str | None = None
    multilabel: bool = False
    label_separator: str = "|"
    blank: list[str] | None = None

    def __post_init__(self) -> None:
        paths = {split: getattr(self, split) for split in ("train", "val", "test", "predict")}
        given = {split: user_path(path) for split, path in paths.items() if path is not None}
        if not given:
            raise RobustTuneError("no table is given: set data.source.train, and val or test where there are any")
        for split, path in given.items():
            require_paths(path, hint=f"set data.source.{split} to a table")
            if path.suffix.lower() not in READERS:
                raise RobustTuneError(f"{path} is no {', '.join(READERS)} file: convert it, or give it its ending")
        if not self.label_separator:
            raise RobustTuneError("data.source.label_separator is empty: set the separator between class names")
        if self.image_root is not None and path_kind(user_path(self.image_root)) != "folder":
            raise RobustTuneError(f"{self.image_root} is no folder: set data.source.image_root to that of the images")

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of a split, or None where no table is given for it.

        Raises:
            RobustTuneError: If the table cannot be read, lacks a column, or has rows that cannot be parsed.
        """
        name: str | None = getattr(self, split)
        if name is None:
            return None
        path = user_path(name)
        bad, blanks = Problems(path, "rows"), Blanks(self.blank)
        needed = [self.image_column, self.text_column, self.label_column, self.id_column]
        found = read_rows(path, bad, [column for column in needed if column is not None])
        total = len(found.rows) + len(bad)
        if not bad:
            self._check_columns(path, found, labelled=split != "predict")
        root = path.parent if self.image_root is None else user_path(self.image_root)
        labels = LabelColumn(self.label_column, self.multilabel, self.label_separator, blanks)
        records = [self._record(number, row, root, labels, bad) for number, row in enumerate(found.rows, 1)]
        labels.check(path)
        bad.add_repeats((record.id, row.where) for record, row in zip(records, found.rows, strict=True))
        bad.refuse(total)
        blanks.warn(path, total)
        return to_table(records)

    def _check_columns(self, path: Path, found: Rows, labelled: bool) -> None:
        needed = [self.image_column, self.text_column, self.label_column if labelled else None, self.id_column]
        missing = [name for name in needed if name is not None and name not in found.columns]
        if missing:
            raise RobustTuneError(
                f"{path} has no column {', '.join(missing)} (it has {', '.join(sorted(found.columns)):.300}): set "
                "data.source.image_column, text_column or label_column to its names, null for a missing modality"
            )

    def _record(self, number: int, row: Row, root: Path, labels: LabelColumn, bad: Problems) -> Record:
        image = cell_text(row, self.image_column, bad, labels.blanks)
        sample_id = str(number) if self.id_column is None else cell_text(row, self.id_column, bad, labels.blanks)
        if sample_id is None:
            bad.add(row.where, "have no id", "give them ids, or set data.source.id_column to null")
        own_root = self.image_root is not None
        labelled = self.label_column in row.cells
        return Record(
            id=sample_id or row.where,
            image=None if image is None else image_path(image, row.where, root, own_root, bad),
            text=cell_text(row, self.text_column, bad, labels.blanks),
            labels=labels.read(row.cells[self.label_column], row.where, bad) if labelled else None,
        )
