"""Readers of Parquet and Arrow IPC files (Feather), batch by batch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from robusttune.data.packs import Part, pack
from robusttune.data.problems import Problems
from robusttune.data.sources.files import guard_against_changes
from robusttune.data.sources.image_cells import holds_content, stored_parts
from robusttune.data.sources.rows import RowBatch, Rows, TableOptions
from robusttune.errors import RobustTuneError

BATCH = 16_384  # rows
IMAGES = 16  # rows of embedded images that are in memory at a time
BUFFER = 1 << 20  # bytes of a Parquet file that are read at a time


def read_parquet(path: Path, bad: Problems, columns: set[str], options: TableOptions) -> Rows:
    """Read a Parquet file."""
    del bad, options
    return _read(path, columns, "Parquet", _parquet_batches)


def read_ipc(path: Path, bad: Problems, columns: set[str], options: TableOptions) -> Rows:
    """Read an Arrow IPC file or stream, which is also the format of Feather (version 2) files."""
    del bad, options
    return _read(path, columns, "Arrow", _ipc_batches)


def ipc_schema(path: Path) -> pa.Schema:
    """Return the columns of an Arrow IPC file or stream and their types.

    Raises:
        RobustTuneError: The file is damaged.
    """
    found: list[pa.Schema] = []

    def select(schema: pa.Schema) -> set[str]:
        """Keep the schema, and select no column."""
        found.append(schema)
        return set()

    with _readable(path, "Arrow"):
        next(_ipc_batches(path, select, BATCH), None)
    return found[0]


Select = Callable[[pa.Schema], set[str]]  # a function from the schema of a file to the columns that are read
Batches = Callable[[Path, Select, int], Iterator[pa.RecordBatch]]


def _read(path: Path, columns: set[str], kind: str, batches: Batches) -> Rows:
    names: list[str] = []

    def found() -> Iterator[RowBatch]:
        return _row_batches(path, columns, kind, batches, names)

    # Both are generators, so the file is opened by the one that is used.
    return Rows((row for batch in found() for row in batch.rows()), names, batches=found())


def _row_batches(path: Path, columns: set[str], kind: str, batches: Batches, names: list[str]) -> Iterator[RowBatch]:
    images: dict[str, Iterator[Any]] = {}  # image cells by column; the contents of images are not held in memory

    def select(schema: pa.Schema) -> set[str]:
        """Return the columns without embedded images, and find those with them."""
        names.extend(schema.names)
        _refuse_repeats(path, [name for name in names if name in columns])
        for field in schema:
            if field.name in columns and holds_content(field.type):
                images[field.name] = pack(path, field.name, partial(_image_parts, path, field.name, batches))
        return columns - images.keys()

    number = 1
    with guard_against_changes(path), _readable(path, kind):
        for batch in filter(len, batches(path, select, BATCH)):
            yield RowBatch(batch, number, images, partial(_readable, path, kind))
            number += len(batch)


def _image_parts(path: Path, column: str, batches: Batches) -> Iterator[list[Part]]:
    """Yield the images in each row of a column, few rows at a time."""
    try:
        for batch in batches(path, lambda schema: {column}, IMAGES):
            yield from map(stored_parts, batch.column(0).to_pylist())
    except OSError as error:  # the table is damaged, unlike an OSError of the pack
        raise ValueError(error) from None


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Turn the errors of damaged files into one sentence: ArrowException, OSError, UnicodeDecodeError, MemoryError, ...

    Raises:
        RobustTuneError: The block has raised an error.
    """
    try:
        yield
    except (RobustTuneError, GeneratorExit):
        raise
    except Exception as error:
        reason = str(error).split("\n")[0].replace(str(path), path.name)[:160]
        raise RobustTuneError(f"{path} is no readable {kind} file ({reason}): write it again") from None


def _parquet_batches(path: Path, select: Select, rows: int) -> Iterator[pa.RecordBatch]:
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
        columns = select(file.schema_arrow)
        kept = [name for name in file.schema_arrow.names if name in columns]
        for batch in file.iter_batches(rows, columns=kept) if kept else ():
            yield batch.select(kept)
        if not kept:
            yield pa.RecordBatch.from_struct_array(pa.array([{}] * file.metadata.num_rows, pa.struct([])))


def _ipc_batches(path: Path, select: Select, rows: int) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(os.fspath(path)) as mapped:
        try:
            file = pa.ipc.open_file(mapped)
            found = (file.get_batch(number) for number in range(file.num_record_batches))
        except pa.ArrowInvalid:  # the stream format, which the datasets library writes
            mapped.seek(0)
            file = pa.ipc.open_stream(mapped)
            found = iter(file)
        columns = select(file.schema)
        kept = [name for name in file.schema.names if name in columns]
        for batch in found:
            batch = batch.select(kept) if kept else batch.select([])
            batch.validate(full=True)
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)


def _refuse_repeats(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise RobustTuneError(f"{path} names the column {twice[0]!r:.80} twice: rename one of them")
