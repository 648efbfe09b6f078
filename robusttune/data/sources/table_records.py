"""The records of a table, whose rows are converted one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from robusttune.data.packs import Packing
from robusttune.data.problems import Problems
from robusttune.data.sources.base import Record
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.image_cells import ImageCells
from robusttune.data.sources.label_cells import LabelColumn
from robusttune.data.sources.label_columns import LabelColumns
from robusttune.data.sources.readers import cell_text
from robusttune.data.sources.rows import Row, Rows
from robusttune.data.sources.text_template import TextTemplate
from robusttune.errors import RobustTuneError


@dataclass(frozen=True)
class RecordReader:
    """The conversion of the rows of one table to records.

    Attributes:
        id_column: Name of the column of ids; None to use row numbers.
        images: Conversion of image cells.
        text: Name of the text column, or template of several columns; None for a table without texts.
        labels: Parser of the label columns; None to leave samples unlabelled.
        blanks: Test for blank cells.
        bad: Collection of problems, extended by cells that cannot be used.
    """

    id_column: str | None
    images: ImageCells
    text: str | TextTemplate | None
    labels: LabelColumn | LabelColumns | None
    blanks: Blanks
    bad: Problems

    def record(self, number: int, row: Row) -> Record:
        """Return the record of a row. A modality whose cell has a problem is missing in it.

        Args:
            number: Number of the row, from 1.
            row: Row of the table.
        """
        sample_id, images, text = self._id(number, row), self._images(row), self._text(row)
        labels = None if self.labels is None else self.labels.read_row(row, self.bad)
        return Record(sample_id, images[0] if images else None, text, labels, images[1:] or None)

    def _id(self, number: int, row: Row) -> str:
        if self.id_column is None:
            return str(number)
        sample_id = cell_text(row, self.id_column, self.bad, self.blanks)
        if sample_id is None:
            self.bad.add(row.where, "have no id", "give them ids, or set data.source.id_column to null")
        return sample_id or row.where

    def _images(self, row: Row) -> list[str]:
        before = len(self.bad)
        names = self.images.used_names(row)
        return names if len(self.bad) == before else []

    def _text(self, row: Row) -> str | None:
        def text_of(column: str | None) -> str | None:
            return cell_text(row, column, self.bad, self.blanks)

        return self.text.fill(text_of) if isinstance(self.text, TextTemplate) else text_of(self.text)


class OpenedTable(NamedTuple):
    """A table whose rows can be read.

    Attributes:
        path: Path of the table.
        found: Rows of the table.
        unparsed: Collection of problems, extended by rows that cannot be parsed.
        reader: Conversion of rows to records.
        packing: Packing of the images that cells embed. It is complete after the last row.
    """

    path: Path
    found: Rows
    unparsed: Problems
    reader: RecordReader
    packing: Packing


def require_columns(path: Path, found: Rows, needed: Iterable[str]) -> None:
    """Check that a table has some columns.

    Args:
        path: Path of the table.
        found: Rows of the table, with the names of its columns.
        needed: Names of the columns.

    Raises:
        RobustTuneError: A column is missing.
    """
    missing = [name for name in dict.fromkeys(needed) if name not in found.columns]
    if missing:
        delimiter = "" if "delimiter" not in found.decision else f"data.source.delimiter if it is no {found.decision}, "
        raise RobustTuneError(
            f"{path} has no column {', '.join(missing):.300} (it has {', '.join(sorted(found.columns)):.300}): set "
            f"{delimiter}data.source.image_column, text_column or label_column to its names, null for a missing "
            "modality"
        )
