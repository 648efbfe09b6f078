"""Arrow files of records in the user's cache folder, which every process maps into memory instead of holding a copy.

A table of more than `IN_MEMORY` rows is written to a file while it is read, in batches. The file of a table that can be
named by a key (see `key_of_files`) is kept: the next process that asks for the same records only maps it. Others have
no name, and their space is free again when the last process that maps them ends. A file that is not used for
`UNUSED` seconds is removed when another one is written.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pyarrow as pa

from robusttune.data.kept_files import locked, remove_unused
from robusttune.paths import cache_home, partial_of, sync

log = logging.getLogger(__name__)

IN_MEMORY = 20_000  # rows of a table that is small enough to have no file
BATCH_ROWS = 1 << 17  # rows of a batch in a file
BATCH_BYTES = 1 << 26
MAGIC = 8  # bytes before the first message of an Arrow file
UNUSED = 30 * 86_400  # seconds
LEFTOVER = 86_400  # age in seconds from which a partial file is assumed to be abandoned


class Records(NamedTuple):
    """The records of a split.

    Attributes:
        table: Table of the records.
        warnings: Warnings about them, which are logged whenever they are loaded.
        note: Note on how they were read, or an empty text.
    """

    table: pa.Table
    warnings: Sequence[str] = ()
    note: str = ""


class KeptByOthersError(Exception):
    """Another process has written the file of the same records meanwhile."""


class RecordWriter:
    """A writer of records, batch by batch, as a context manager: to memory first, and to a file if they are many.

    If the file cannot be written, for example because the disk is full, a warning says so, and the records stay in
    memory. The batches that were written before are used from the file, which no other process can find.

    Args:
        schema: Columns of the records.
        key: Key of the file, or None for a file without a name.

    Example:
        >>> with RecordWriter(pa.schema([("id", pa.string())])) as writer:
        ...     writer.add(pa.record_batch({"id": ["1", "2"]}))
        ...     len(writer.table())
        2
    """

    def __init__(self, schema: pa.Schema, key: str | None = None) -> None:
        self.schema = schema
        self.key = key
        self._rows = 0
        self._pending: list[pa.RecordBatch] = []  # batches that are not yet written
        self._done: list[pa.RecordBatch] = []  # larger ones in memory, if there can be no file
        self._written = 0  # batches in the file
        self._file: Any = None
        self._partial: Path | None = None
        self._failed = False
        self._table: pa.Table | None = None
        self._stack = ExitStack()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a batch of records.

        Raises:
            KeptByOthersError: Another process has written the file meanwhile.
        """
        self._pending.append(batch)
        self._rows += batch.num_rows
        size = sum(batch.num_rows for batch in self._pending)
        if self._rows > IN_MEMORY and (size >= BATCH_ROWS or sum(b.nbytes for b in self._pending) >= BATCH_BYTES):
            self._flush()

    def table(self) -> pa.Table:
        """Return all records that were added."""
        if self._table is None:
            if self._rows > IN_MEMORY:
                self._flush()
            batches = _first_batches(self._partial, self._written) if self._partial is not None else []
            table = pa.Table.from_batches([*batches, *self._done, *self._pending], self.schema)
            self._table = table if batches or self._done else table.combine_chunks()
        return self._table

    def keep(self, warnings: Sequence[str] = (), note: str = "") -> None:
        """Give the file of the records its name, if there is a file and it has a key.

        Args:
            warnings: Warnings about the records, which are kept with them.
            note: Note on how they were read, which is kept with them.
        """
        self.table()
        if self._file is None or self.key is None or self._failed:
            return
        partial, path = self._partial, file_of(self.key)
        assert partial is not None
        about = json.dumps({"warnings": [*warnings], "note": note})

        def complete() -> None:
            """Write the end of the file, whose last batch is empty, and rename it."""
            self._file.write_batch(pa.RecordBatch.from_pylist([], self.schema), custom_metadata={"about": about})
            self._file.close()
            sync(partial)
            partial.replace(path)

        self._try(complete)

    def _flush(self) -> None:
        """Write the pending batches as one, or keep it in memory."""
        if not self._pending:
            return
        batch = pa.concat_batches(self._pending)
        self._pending = []

        def write() -> None:
            """Write the batch to the file, which is created before the first one."""
            if self._file is None:
                self._begin()
            self._file.write_batch(batch)
            self._written += 1

        if self._failed or not self._try(write):
            self._done.append(batch)

    def _begin(self) -> None:
        """Create the file. Only one of several processes does; the others wait, and find it."""
        folder = file_of("").parent
        folder.mkdir(parents=True, exist_ok=True)
        name = file_of(self.key or f"unnamed-{secrets.token_hex(8)}")
        if self.key is not None:
            self._stack.enter_context(locked(folder / f".{self.key[:16]}.lock"))
            if name.exists():
                raise KeptByOthersError
        remove_unused([*folder.glob("*.arrow"), *folder.glob(".*.lock")], UNUSED)
        remove_unused(folder.glob(".*.partial"), LEFTOVER)
        self._partial = partial_of(name)
        self._stack.callback(self._partial.unlink, missing_ok=True)
        sink = self._stack.enter_context(pa.OSFile(os.fspath(self._partial), "wb"))
        self._file = pa.ipc.new_file(sink, self.schema)
        self._stack.callback(self._abandon)

    def _abandon(self) -> None:
        """Close the writer of a file that is not finished, which writes its end, if there is room."""
        with suppress(OSError, pa.ArrowException):
            self._file.close()

    def _try(self, write: Callable[[], None]) -> bool:
        """Call a function that writes, and return whether it could. Log a warning the first time it could not."""
        try:
            write()
        except (OSError, pa.ArrowException) as error:
            self._failed = True
            code = getattr(error, "errno", None)
            reason = str(error).split("\n")[0] if code is None else os.strerror(code)
            log.warning(
                "the records of a large table cannot be written to %s (%.160s), and are kept in memory: make room, or "
                "set XDG_CACHE_HOME to another folder",
                *(file_of("").parent, reason),
            )
        return not self._failed


def load_records(key: str) -> Records | None:
    """Return the records of a kept file, or None if there is none. A damaged file is removed.

    Args:
        key: Key of the file.
    """
    path = file_of(key)
    try:
        file = pa.ipc.open_file(pa.memory_map(os.fspath(path)))
        batches = [file.get_batch(number) for number in range(file.num_record_batches - 1)]
        about = json.loads(file.get_batch_with_custom_metadata(len(batches)).custom_metadata[b"about"])
        records = Records(pa.Table.from_batches(batches, file.schema), **about)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, pa.ArrowException):
        with suppress(OSError):
            path.unlink()
        return None
    with suppress(OSError):
        os.utime(path)  # it is in use
    return records


def file_of(key: str) -> Path:
    """Return the path of the kept file of a key."""
    return cache_home() / "tables" / f"{key}.arrow"


def _first_batches(path: Path, count: int) -> list[pa.RecordBatch]:
    """Return the first batches of a file, which may have no end yet. It stays mapped when it is removed."""
    if not count:
        return []
    mapped = pa.memory_map(os.fspath(path))
    mapped.seek(MAGIC)
    stream = pa.ipc.open_stream(mapped)
    return [stream.read_next_batch() for _ in range(count)]
