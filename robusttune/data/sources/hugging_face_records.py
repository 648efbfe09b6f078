"""The conversion of the rows of data sets that the `datasets` library loads to records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Record
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.hugging_face_images import cell_name, image_counts
from robusttune.data.sources.image_cells import ImageCells, holds_content, is_embedded, stored_parts
from robusttune.data.sources.label_cells import LabelColumn
from robusttune.data.sources.readers import as_text
from robusttune.data.sources.rows import Row
from robusttune.types import Split


@dataclass(frozen=True)
class RowReader:
    """The conversion of the rows of one split, in batches.

    Attributes:
        split: Split of the rows.
        image_columns: Names of the image columns.
        text_column: Name of the text column, or None.
        id_column: Name of the column of ids; None to use row numbers.
        images: Conversion of image cells that hold texts.
        averages_images: Flag, True if all images of a row are used, False for the first one.
        labels: Parser of the label column.
        blanks: Test for blank cells.
        bad: Collection of problems, extended by cells that cannot be used.
        place: Function from a row number to its location, for messages.
    """

    split: Split
    image_columns: list[str]
    text_column: str | None
    id_column: str | None
    images: ImageCells
    averages_images: bool
    labels: LabelColumn
    blanks: Blanks
    bad: Problems
    place: Callable[[int], str] = "row {}".format

    def records(self, rows: pa.Table, first: int = 0) -> Iterator[Record]:
        """Yield the records of some rows. No image is decoded.

        Args:
            rows: Rows with the columns that are used. Without the label column, the samples are unlabelled.
            first: Number of the first row in the split.
        """
        images = self._image_names(rows, first)
        columns = (self.text_column, self.id_column, self.labels.column)
        texts, ids, labels = (self._cells(rows, name, first) for name in columns)
        for number, names in enumerate(images):
            row = first + number
            yield Record(
                self._id(ids[number], row),
                names[0] if names else None,
                self._text(texts[number], self.place(row), self.blanks),
                self.labels.read(labels[number], self.place(row), self.bad),
                names[1:] or None,
            )

    def _image_names(self, rows: pa.Table, first: int) -> list[list[str]]:
        """Return the names of the images of each row that are used, see `cell_name` for those of embedded images."""
        names: list[list[str]] = [[] for _ in range(len(rows))]
        for number, column in enumerate(self.image_columns):
            cells = rows[column]
            if holds_content(cells.type):
                counts = image_counts(cells)
            else:
                counts = [len(stored_parts(c)) if is_embedded(c) else 0 for c in cells.to_pylist()]
            for row, count in enumerate(counts):
                if count:
                    names[row] += [cell_name(self.split, first + row, number, item) for item in range(count)]
                elif not holds_content(cells.type):
                    cell = Row(self.place(first + row), {column: cells[row].as_py()})
                    names[row] += self.images.names(cell, [column])
        return names if self.averages_images else [row_names[:1] for row_names in names]

    def _cells(self, rows: pa.Table, column: str | None, first: int) -> list[Any]:
        """Return the cells of a column, with bytes decoded; None for each row if there is no such column."""
        if column not in rows.column_names:
            return [None] * len(rows)
        cells: list[Any] = rows[column].to_pylist()
        for number, cell in enumerate(cells):
            if isinstance(cell, bytes):
                try:
                    cells[number] = cell.decode("utf-8-sig")
                except UnicodeDecodeError:
                    cells[number] = None
                    self.bad.add(self.place(first + number), f"have a {column} that is not UTF-8", "convert it")
        return cells

    def _id(self, value: Any, row: int) -> str:
        text = self._text(value, self.place(row), self._no_blanks)
        if text is None and self.id_column is not None:
            self.bad.add(self.place(row), "have no id", "give them ids, or set data.source.id_column to null")
        return text or (f"{row}" if self.id_column is None else self.place(row))

    def _text(self, value: Any, where: str, blanks: Blanks) -> str | None:
        text = as_text(value)
        if text is None:
            self.bad.add(f"{where}, {value!r:.40}", "have no text where it ought to be")
        return None if text is None or blanks.is_blank(text, str(self.text_column)) else text

    @cached_property
    def _no_blanks(self) -> Blanks:
        return Blanks([])


def names_of(feature: Any) -> list[str] | None:
    """Return the class names of a `ClassLabel` feature, also within lists; None for other features."""
    while feature is not None and not hasattr(feature, "names"):
        feature = getattr(feature, "feature", None)
    return None if feature is None else list(feature.names)
