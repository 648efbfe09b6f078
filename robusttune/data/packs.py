"""Packs: copies of the images that a table has in its cells, in files from which each image is read by itself.

In a Parquet file, an image can only be read together with hundreds of its neighbours. So the images are copied once to
the user's cache folder. A pack has the bytes of the images one after the other, then an Arrow file with their
positions, and the position of that Arrow file in the last 8 bytes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
from pyarrow import feather

from robusttune.data.kept_files import key_of_files, locked, remove_unused
from robusttune.errors import RobustTuneError
from robusttune.paths import atomic_write, cache_home

log = logging.getLogger(__name__)

FORMAT = 1  # increase it when the layout of packs changes
UNUSED = 7 * 86_400  # age in seconds from which an outdated pack is removed
NAME = re.compile(r".* \[(?P<pack>[0-9a-f]{16}-[0-9a-f]{16}):(?P<number>[0-9]+)\]", re.DOTALL)


class Packed(NamedTuple):
    """A reference to an image in a pack.

    Attributes:
        pack: Key of the pack: hashes of the table's path and of its state, hexadecimal.
        number: Number of the image in the pack, from 0.

    Example:
        >>> Packed.parse(Packed("0" * 16 + "-" + "1" * 16, 7).name("row 3 of /data/train.parquet")).number
        7
    """

    pack: str
    number: int

    def name(self, place: str) -> str:
        """Return the name of the image in the records: its place in the table, and this reference."""
        return f"{place} [{self.pack}:{self.number}]"

    @classmethod
    def parse(cls, name: str) -> Packed | None:
        """Return the reference in a name, or None if the name is of another kind."""
        found = NAME.fullmatch(name)
        return None if found is None else cls(found["pack"], int(found["number"]))


Part = bytes | str  # an image in a cell: its content, or the path or URL where it is
Reference = Packed | str


class Pack:
    """An open pack.

    Args:
        key: Key of the pack, see `Packed`.

    Raises:
        OSError: The pack does not exist.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.file: BinaryIO = _path(key).open("rb", buffering=0)
        os.utime(self.file.fileno())  # it is in use
        size = os.fstat(self.file.fileno()).st_size
        start = int.from_bytes(os.pread(self.file.fileno(), 8, size - 8), "little")
        self.index = feather.read_table(BytesIO(os.pread(self.file.fileno(), size - 8 - start, start)))

    def read(self, number: int) -> bytes:
        """Return the content of an image."""
        start, size = (self.index[name][number].as_py() for name in ("start", "size"))
        return os.pread(self.file.fileno(), size, start)

    def digest(self, number: int) -> bytes:
        """Return the 16-byte BLAKE2b hash of an image's content."""
        digest: bytes = self.index["digest"][number].as_py()
        return digest

    def references(self) -> Iterator[list[Reference]]:
        """Yield the images of each row of the table: references to this pack, or paths and URLs."""
        rows, places = self.index["row"].to_numpy(), self.index["place"]
        number = 0
        for row in range(int(self.index.schema.metadata[b"rows"])):
            found: list[Reference] = []
            while number < len(rows) and rows[number] == row:
                found.append(places[number].as_py() or Packed(self.key, number))
                number += 1
            yield found


def pack(table: Path, what: str, cells: Callable[[], Iterable[Iterable[Part]]]) -> Iterator[list[Reference]]:
    """Replace the images in the cells of a table by references to a pack, which is created if it does not exist.

    Args:
        table: Path of the table. A pack of an earlier state of the file is not used.
        what: Column of the cells.
        cells: Function that returns the images of each row. It is called only if there is no pack yet.

    Yields:
        Images of each row: references in place of contents; paths and URLs unchanged.

    Raises:
        RobustTuneError: The pack cannot be written.
    """
    with Packing(table, [table], what) as packing:
        if packing.begin():
            for row, parts in enumerate(cells()):
                packing.row = row
                for part in parts:
                    packing.add(part)
    with _storing(table):
        found = Pack(packing.key)
    yield from found.references()


class Packing:
    """The packing of images whose rows are read one after the other, as a context manager.

    If the images are packed already, they are only counted. Otherwise the pack is complete at the end of the ``with``
    block, and there is none if the block raises.

    Args:
        table: Path of the table, for messages.
        files: Paths of its files.
        what: Column of the images, or another word for them.

    Attributes:
        key: Key of the pack.
        row: Row of the images that are added next.
    """

    def __init__(self, table: Path, files: Sequence[Path], what: str) -> None:
        self.table = table
        self.key = key_of_files(table, files, f"{FORMAT} {what}")
        self.row = 0
        self._count = 0
        self._stack = ExitStack()
        self._writer: _Writer | None = None

    def __enter__(self) -> Packing:
        return self

    def __exit__(self, *error: Any) -> None:
        with _storing(self.table):
            self._stack.__exit__(*error)

    @property
    def is_used(self) -> bool:
        """Return whether the rows so far have images."""
        return self._count > 0

    def begin(self) -> bool:
        """Begin to write a pack, and return True, unless it exists."""
        path = _path(self.key)
        with _storing(self.table):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Only one of several processes writes the pack; the others wait, and find it.
            self._stack.enter_context(locked(path.with_name(f".{self.key[:16]}.lock")))
            if not path.exists():
                _remove_outdated(path)
                log.info("the images in %s are copied to %s, to be read one by one", self.table, path)
                self._writer = self._stack.enter_context(_writing(path, self))
            else:
                self._stack.close()  # Release the lock: others need not wait until this table has been read.
        return self._writer is not None

    def add(self, part: Part) -> Packed:
        """Add an image, and return the reference to it."""
        if self._count == 0 and self._writer is None:
            self.begin()
        if self._writer is not None:
            with _storing(self.table):
                self._writer.add(self.row, part)
        self._count += 1
        return Packed(self.key, self._count - 1)


class _Writer:
    """The writer of a pack.

    Args:
        file: File to write to.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.rows, self.starts, self.sizes = array("q"), array("q"), array("q")
        self.places: list[str | None] = []
        self.digests: list[bytes | None] = []

    def add(self, row: int, part: Part) -> None:
        """Add the content, path or URL of an image."""
        content = part if isinstance(part, bytes) else None
        self.rows.append(row)
        self.starts.append(self.file.tell())
        self.sizes.append(0 if content is None else self.file.write(content))
        self.digests.append(None if content is None else hashlib.blake2b(content, digest_size=16).digest())
        self.places.append(part if isinstance(part, str) else None)

    def finish(self, rows: int) -> None:
        """Write the index and its position; ``rows`` is the number of rows of the table."""
        index = {
            "row": pa.array(self.rows, pa.int64()),
            "start": pa.array(self.starts, pa.int64()),
            "size": pa.array(self.sizes, pa.int64()),
            "digest": pa.array(self.digests, pa.binary(16)),
            "place": pa.array(self.places, pa.string()),
        }
        position, content = self.file.tell(), BytesIO()
        table = pa.table(index).replace_schema_metadata({"rows": str(rows)})
        feather.write_feather(table, content, compression="uncompressed")
        self.file.write(content.getvalue() + position.to_bytes(8, "little"))


@contextmanager
def _writing(path: Path, packing: Packing) -> Iterator[_Writer]:
    """Write a pack in a ``with`` block; see `atomic_write`."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        writer = _Writer(file)
        yield writer
        writer.finish(packing.row + 1)


@contextmanager
def _storing(table: Path) -> Iterator[None]:
    """Convert an OSError in a ``with`` block, which writes a pack, to an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise RobustTuneError(
            f"the images in {table} cannot be copied to {cache_home()} ({error.strerror or error}): make room, or set "
            "XDG_CACHE_HOME to another folder"
        ) from None


def _path(key: str) -> Path:
    return cache_home() / "images" / "tables" / f"{key}.pack"


def _remove_outdated(path: Path) -> None:
    """Remove packs and partial files of the same table that were not used for a while, since they take much space."""
    remove_unused([*path.parent.glob(f"{path.name[:16]}-*"), *path.parent.glob(f".{path.name[:16]}-*.partial")], UNUSED)
