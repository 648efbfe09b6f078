"""The samples to predict, in pieces: from a table of any size, or from a data set in another layout."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from robusttune.data.images import ImageReader
from robusttune.data.sources import Source, Table
from robusttune.data.sources.base import SCHEMA
from robusttune.data.sources.table_files import table_files
from robusttune.data.sources.table_stream import StreamedRow
from robusttune.errors import RobustTuneError
from robusttune.inference.tables.kept import (
    chosen_columns,
    image_columns,
    inferred_types,
    kept_array,
    stored_types,
)
from robusttune.inference.tables.plan import Part
from robusttune.paths import user_path


class Piece(NamedTuple):
    """The samples of one part.

    Attributes:
        part: Numbers of the rows.
        records: Table of the samples, with the columns of `SCHEMA`.
        ids: Identifiers, an array of strings, null where a row has none.
        problems: For each row the reason why a part of it cannot be used, or None.
        kept: Columns that are copied to the predictions.
    """

    part: Part
    records: pa.Table
    ids: pa.Array
    problems: list[str | None]
    kept: dict[str, pa.Array]


class PredictionInput(ABC):
    """Samples to predict.

    Attributes:
        rows: Number of samples.
        kept: Types of the columns that are copied to the predictions, by name.
        state: Description that changes whenever the samples do, as plain data.
        images: Reader of their images.
    """

    rows: int
    kept: dict[str, pa.DataType]
    state: Any
    images: ImageReader

    @abstractmethod
    def pieces(self, parts: Sequence[Part]) -> Iterator[Piece]:
        """Yield the samples of some parts, which are in ascending order."""


@dataclass
class TableInput(PredictionInput):
    """Samples in a table, which is read twice: once to count its rows, once to predict them, a piece at a time.

    Args:
        source: Table with the split ``predict``.
        columns: Columns to copy to the predictions, see `chosen_columns`.

    Raises:
        RobustTuneError: The table cannot be read, has no rows, or lacks a column.
    """

    source: Table
    columns: Sequence[str] | str | None
    rows: int = field(init=False)
    kept: dict[str, pa.DataType] = field(init=False)

    def __post_init__(self) -> None:
        path = user_path(str(self.source.predict))
        self.files = table_files(path)
        self.images = self.source.images
        self.state = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in self.files]
        names = self._count()
        stored = stored_types(self.files[0])
        content = image_columns(stored)
        known = names if stored is None else list(stored)
        chosen = chosen_columns(self.columns, known, content | {self.source.id_column or ""})
        refused = [name for name in chosen if name in content]
        if refused:
            raise RobustTuneError(f"the column {refused[0]!r:.80} holds images, which are not copied: leave it out")
        if stored is not None:
            self.kept = {name: stored[name] for name in chosen}
        else:
            rows = (row.cells for row in self.source.stream("predict", chosen)) if chosen else ()
            self.kept = inferred_types(rows, chosen)

    def _count(self) -> list[str]:
        """Count the rows, pack the images that cells embed, and return the names of the columns.

        Raises:
            RobustTuneError: No row can be read.
        """
        stream, first, usable, total = self.source.stream("predict"), None, 0, 0
        for row in stream:
            total += 1
            usable += row.problem is None or row.record.image is not None or row.record.text is not None
            first = first or row.problem
        if not usable:
            raise RobustTuneError(f"{stream.path} has no row that can be used (the first: {first}): correct the table")
        stream.blanks.warn(stream.path, total)
        self.rows = total
        return stream.found.columns

    def pieces(self, parts: Sequence[Part]) -> Iterator[Piece]:
        """Yield the samples of some parts. Rows between them are read and skipped."""
        rows, at = iter(self.source.stream("predict", [*self.kept])), 0
        for part in parts:
            found = list(islice(rows, part.start - at, part.stop - at))
            at = part.stop
            if len(found) < part.rows:
                raise RobustTuneError(f"{self.source.predict} has lost rows while it was read: leave it unchanged")
            yield self._piece(part, found)

    def _piece(self, part: Part, rows: list[StreamedRow]) -> Piece:
        columns = zip(*(row.record for row in rows), strict=True)
        arrays = [pa.array(values, kind.type) for values, kind in zip(columns, SCHEMA, strict=True)]
        return Piece(
            part,
            pa.table(arrays, SCHEMA),
            pa.array([row.id for row in rows], pa.string()),
            [row.problem for row in rows],
            {name: self._kept(name, kind, rows) for name, kind in self.kept.items()},
        )

    def _kept(self, name: str, kind: pa.DataType, rows: list[StreamedRow]) -> pa.Array:
        try:
            return kept_array([row.cells.get(name) for row in rows], kind)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            reason = str(error).split("\n")[0]
            raise RobustTuneError(
                f"the column {name!r:.80} cannot be copied as {kind} ({reason:.100}): leave it out of --columns"
            ) from None


@dataclass
class SourceInput(PredictionInput):
    """Samples of a data set in its own layout: those to predict, or its test samples where there are no others.

    Args:
        source: Data set.

    Raises:
        RobustTuneError: The data set has no such samples, or they cannot be read.
    """

    source: Source
    kept: dict[str, pa.DataType] = field(default_factory=dict)
    state: Any = None

    def __post_init__(self) -> None:
        found = self.source.read("predict")
        records = self.source.read("test") if found is None else found
        if records is None or not len(records):
            raise RobustTuneError("the data set has no samples to predict: give a table with --input")
        self.records = records.cast(SCHEMA)
        self.state = _digest(self.records)
        self.rows = len(records)
        self.images = self.source.images

    def pieces(self, parts: Sequence[Part]) -> Iterator[Piece]:
        """Yield the samples of some parts."""
        for part in parts:
            records = self.records.slice(part.start, part.rows).combine_chunks()
            yield Piece(part, records, records["id"].combine_chunks(), [None] * part.rows, {})


def _digest(table: pa.Table) -> str:
    """Return a hash of the content of a table."""
    content = pa.BufferOutputStream()
    with pa.ipc.new_stream(content, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return hashlib.blake2b(content.getvalue(), digest_size=16).hexdigest()


def open_input(source: Source, columns: Sequence[str] | str | None) -> PredictionInput:
    """Return the samples of a source to predict, see `TableInput` and `SourceInput`.

    Raises:
        RobustTuneError: The samples cannot be read, or columns are to be copied from a data set without them.
    """
    if isinstance(source, Table):
        if source.predict is None:
            raise RobustTuneError("there is no table to predict: give --input")
        return TableInput(source, columns)
    if columns is not None:
        raise RobustTuneError(
            f"--columns copies columns of a table, and {type(source).__name__} has none: leave it out"
        )
    return SourceInput(source)
