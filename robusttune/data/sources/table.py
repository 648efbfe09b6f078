"""The user's own data: a JSONL, CSV or Parquet table for each split."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from robusttune.data.sources.base import Record, Source, or_absent, read_text, to_table
from robusttune.errors import RobustTuneError
from robusttune.types import Split


@dataclass(frozen=True)
class Table(Source):
    """A table of samples for each split. A blank cell is an absent modality.

    Args:
        train: table to train on; the ending tells the format: ``.jsonl``, ``.csv`` (with a header) or ``.parquet``.
        val: table to validate on; without one, a part of ``train`` is held out.
        test: table to test on.
        predict: table to predict; its labels are not needed.
        image_root: folder that image paths are relative to; by default the table's own.
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
        given = {split: Path(path).expanduser() for split, path in paths.items() if path is not None}
        if not given:
            raise RobustTuneError("no table is given: set data.source.train, and val or test where there are any")
        for split, path in given.items():
            if not path.is_file():
                what = "is a folder" if path.is_dir() else "does not exist"
                raise RobustTuneError(f"{path} {what}: set data.source.{split} to a table")
            if path.suffix not in READERS:
                raise RobustTuneError(f"{path} is no {', '.join(READERS)} file: convert it, or give it its ending")
        if self.image_root is not None and not Path(self.image_root).expanduser().is_dir():
            raise RobustTuneError(f"{self.image_root} is no folder: set data.source.image_root to that of the images")

    def read(self, split: Split) -> pa.Table | None:
        name: str | None = getattr(self, split)
        if name is None:
            return None
        path = Path(name).expanduser()
        root = path.parent if self.image_root is None else Path(self.image_root).expanduser()
        rows = list(READERS[path.suffix](path))
        if not rows:
            raise RobustTuneError(f"{path} has no rows: give a table with samples")
        self._check_columns(path, rows, labelled=split != "predict")
        records = [self._record(path, number, row, root) for number, row in enumerate(rows, 1)]
        seen: dict[str, int] = {}
        for number, record in enumerate(records, 1):
            if record.id in seen:
                raise RobustTuneError(
                    f"{path}: rows {seen[record.id]} and {number} have the same id {record.id!r}: make ids unique"
                )
            seen[record.id] = number
        return to_table(records)

    def _check_columns(self, path: Path, rows: list[Mapping[str, Any]], labelled: bool) -> None:
        columns = {name for row in rows for name in row}
        needed = [self.image_column, self.text_column, self.label_column if labelled else None, self.id_column]
        missing = [name for name in needed if name is not None and name not in columns]
        if missing:
            raise RobustTuneError(
                f"{path} has no column {', '.join(missing)} (it has {', '.join(sorted(columns))}): set "
                "data.source.image_column, text_column or label_column to the table's names, null for a missing side"
            )

    def _record(self, path: Path, number: int, row: Mapping[str, Any], root: Path) -> Record:
        image = or_absent(self._string(path, number, row, self.image_column))
        return Record(
            id=str(number) if self.id_column is None else self._string(path, number, row, self.id_column) or "",
            image=None if image is None else str(root / image.strip()),
            text=or_absent(self._string(path, number, row, self.text_column)),
            labels=self._labels(path, number, row),
        )

    def _string(self, path: Path, number: int, row: Mapping[str, Any], column: str | None) -> str | None:
        value = None if column is None else row.get(column)
        if isinstance(value, float) and math.isnan(value):  # how pandas writes a blank cell
            return None
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int | float):
            return str(value)
        raise RobustTuneError(f"{path}, row {number}: {column} is {value!r:.60}: give a string")

    def _labels(self, path: Path, number: int, row: Mapping[str, Any]) -> list[str] | None:
        if self.label_column not in row:
            return None
        value = row[self.label_column]
        if isinstance(value, list):
            if not self.multilabel:
                raise RobustTuneError(
                    f"{path}, row {number}: {self.label_column} is a list: set data.source.multilabel to true"
                )
            return [str(name) for name in value]
        label = or_absent(self._string(path, number, row, self.label_column))
        if self.multilabel:
            return [name.strip() for name in (label or "").split(self.label_separator) if name.strip()]
        return None if label is None else [label.strip()]


def _read_jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RobustTuneError(f"{path}, line {number} is no JSON ({error}): mend or remove it") from None
        if not isinstance(row, dict):
            raise RobustTuneError(f"{path}, line {number} is no JSON object: write one object a line")
        yield row


def _read_csv(path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise RobustTuneError(
                    f"{path}, line {reader.line_num} has not as many cells as the header: quote cells that hold commas"
                )
            yield row
    except csv.Error as error:
        raise RobustTuneError(f"{path}, line {reader.line_num} is no CSV ({error}): mend or remove it") from None


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RobustTuneError(f"{path} is no readable Parquet file ({error!s:.80}): write it again") from None
    yield from rows


READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
