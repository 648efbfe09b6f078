"""The user's own data: a JSONL, CSV or Parquet table for each split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Record, Source, require, to_table
from robusttune.data.sources.files import kind_of, within
from robusttune.data.sources.readers import READERS, Row, as_text, read_rows, text_of
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split


@dataclass(frozen=True)
class Table(Source):
    """A table of samples for each split. A blank cell is an absent modality.

    Args:
        train: table to train on; the ending tells the format: ``.jsonl``, ``.csv`` (with a header) or ``.parquet``.
        val: table to validate on; without one, a part of ``train`` is held out.
        test: table to test on.
        predict: table to predict; its labels are not needed.
        image_root: folder that image paths are relative to, and must not lead out of; by default the table's own, where
            absolute paths are taken as they are.
        image_column: paths of image files; null for a table without images.
        text_column: texts; null for a table without texts.
        label_column: class names; in multi-label data a list, or names with ``label_separator`` between them, and a
            blank says that there is none.
        id_column: unique ids; by default the row numbers, counted from 1.
        multilabel: whether a sample may carry any number of classes.
        label_separator: between the names of several classes in one cell.
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

    def __post_init__(self) -> None:
        paths = {split: getattr(self, split) for split in ("train", "val", "test", "predict")}
        given = {split: user_path(path) for split, path in paths.items() if path is not None}
        if not given:
            raise RobustTuneError("no table is given: set data.source.train, and val or test where there are any")
        for split, path in given.items():
            require(path, hint=f"set data.source.{split} to a table")
            if path.suffix not in READERS:
                raise RobustTuneError(f"{path} is no {', '.join(READERS)} file: convert it, or give it its ending")
        if not self.label_separator:
            raise RobustTuneError("data.source.label_separator is empty: give what stands between names of classes")
        if self.image_root is not None and kind_of(user_path(self.image_root)) != "folder":
            raise RobustTuneError(f"{self.image_root} is no folder: set data.source.image_root to that of the images")

    def read(self, split: Split) -> pa.Table | None:
        name: str | None = getattr(self, split)
        if name is None:
            return None
        path = user_path(name)
        bad = Problems(path, "rows")
        rows = read_rows(path, bad)
        total = len(rows) + len(bad)
        if not bad:
            self._check_columns(path, rows, labelled=split != "predict")
        root = path.parent if self.image_root is None else user_path(self.image_root)
        records = [self._record(number, row, root, bad) for number, row in enumerate(rows, 1)]
        bad.add_repeats((record.id, row.where) for record, row in zip(records, rows, strict=True))
        bad.refuse(total)
        return to_table(records)

    def _check_columns(self, path: Path, rows: list[Row], labelled: bool) -> None:
        columns = {name for row in rows for name in row.cells}
        needed = [self.image_column, self.text_column, self.label_column if labelled else None, self.id_column]
        missing = [name for name in needed if name is not None and name not in columns]
        if missing:
            raise RobustTuneError(
                f"{path} has no column {', '.join(missing)} (it has {', '.join(sorted(columns))}): set "
                "data.source.image_column, text_column or label_column to the table's names, null for a missing side"
            )

    def _record(self, number: int, row: Row, root: Path, bad: Problems) -> Record:
        image = text_of(row, self.image_column, bad)
        sample_id = str(number) if self.id_column is None else text_of(row, self.id_column, bad)
        if sample_id is None:
            bad.add(row.where, "have no id", "give them ids, or set data.source.id_column to null")
        return Record(
            id=sample_id or row.where,
            image=None if image is None else self._path(row, image.strip(), root, bad),
            text=text_of(row, self.text_column, bad),
            labels=self._labels(row, bad),
        )

    def _path(self, row: Row, image: str, root: Path, bad: Problems) -> str:
        if self.image_root is None and Path(image).is_absolute() and "\0" not in image:
            return image
        path = within(root, image)
        if path is None:
            what = f"name an image outside of the folder of images, {root}"
            remedy = "correct them, or set data.source.image_root to a folder that holds all images"
            bad.add(f"{row.where}, {image!r:.80}", what, remedy)
        return path or image

    def _labels(self, row: Row, bad: Problems) -> list[str] | None:
        value = row.cells.get(self.label_column)
        names: list[str | None]
        if isinstance(value, list) and self.multilabel:
            names = [as_text(name) for name in value]
            if not all(name and name.strip() for name in names):
                bad.add(f"{row.where}, {value!r:.40}", f"have no names in the list of {self.label_column}")
        elif isinstance(value, list):
            bad.add(row.where, f"have a list as {self.label_column}", "set data.source.multilabel to true")
            return None
        elif self.label_column not in row.cells:
            return None
        else:
            label = text_of(row, self.label_column, bad)
            if label is None and not self.multilabel:
                return None
            names = list((label or "").split(self.label_separator)) if self.multilabel else [label]
        return list(dict.fromkeys(name.strip() for name in names if name and name.strip()))
