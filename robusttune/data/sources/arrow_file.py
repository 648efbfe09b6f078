"""Readers of Parquet and Arrow IPC files (Feather), batch by batch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from robusttune.data.problems import Problems
from robusttune.data.sources.files import guard_against_changes
from robusttune.data.sources.rows import Row, Rows, TableOptions
from robusttune.errors import RobustTuneError

BATCH = 4096  # rows


def read_parquet(path: Path, bad: Problems, columns: set[str], options: TableOptions) -> Rows:
    """Read a Parquet file."""
    del bad, options
    return _read(path, columns, "Parquet", _parquet_batches)


def read_ipc(path: Path, bad: Problems, columns: set[str], options: TableOptions) -> Rows:
    """Read an Arrow IPC file or stream, which is also the format of Feather (version 2) files."""
    del bad, options
    return _read(path, columns, "Arrow", _ipc_batches)


Batches = Iterator[tuple[Sequence[str], pa.RecordBatch | None]]


def _read(path: Path, columns: set[str], kind: str, batches: Callable[[Path, set[str]], Batches]) -> Rows:
    """Return the rows of a file that is opened once: the first item of ``batches`` has the names of all columns."""
    names: list[str] = []
    return Rows(_rows(path, columns, kind, batches, names), names)


def _rows(
    path: Path, columns: set[str], kind: str, batches: Callable[[Path, set[str]], Batches], names: list[str]
) -> Iterator[Row]:
    number = 0
    with guard_against_changes(path), _readable(path, kind):
        for found, batch in batches(path, columns):
            if batch is None:
                _refuse_repeats(path, [name for name in found if name in columns])
                names.extend(found)
                continue
            cells: list[dict[str, Any]] = batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows
            for row in cells:
                number += 1
                yield Row(f"row {number}", row)


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


def _parquet_batches(path: Path, columns: set[str]) -> Batches:
    with pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        yield names, None
        kept = [name for name in names if name in columns]
        for batch in file.iter_batches(BATCH, columns=kept) if kept else ():
            yield names, batch.select(kept)
        if not kept:
            yield names, pa.RecordBatch.from_struct_array(pa.array([{}] * file.metadata.num_rows, pa.struct([])))


def _ipc_batches(path: Path, columns: set[str]) -> Batches:
    with pa.memory_map(os.fspath(path)) as mapped:
        try:
            file = pa.ipc.open_file(mapped)
            found = (file.get_batch(number) for number in range(file.num_record_batches))
        except pa.ArrowInvalid:  # the stream format, which the datasets library writes
            mapped.seek(0)
            file = pa.ipc.open_stream(mapped)
            found = iter(file)
        names = file.schema.names
        yield names, None
        kept = [name for name in names if name in columns]
        for batch in found:
            batch = batch.select(kept) if kept else batch.select([])
            batch.validate(full=True)
            for start in range(0, batch.num_rows, BATCH):
                yield names, batch.slice(start, BATCH)


def _refuse_repeats(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise RobustTuneError(f"{path} names the column {twice[0]!r:.80} twice: rename one of them")
