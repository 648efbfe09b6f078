"""Packs: copies of the images that a table has in its cells, in files from which each image is read by itself.

In a Parquet file, an image can only be read together with hundreds of its neighbours. So the images are copied once to
the user's cache folder. A pack has the bytes of the images one after the other, then an Arrow file with their
positions, and the position of that Arrow file in the last 8 bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
from pyarrow import feather
from rich.filesize import decimal

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

    def references(self) -> list[list[Reference]]:
        """Return the images of each row of the table: references to this pack, or paths and URLs."""
        rows: list[list[Reference]] = [[] for _ in range(int(self.index.schema.metadata[b"rows"]))]
        for number, (row, place) in enumerate(zip(*(self.index[n].to_pylist() for n in ("row", "place")), strict=True)):
            rows[row].append(Packed(self.key, number) if place is None else place)
        return rows


def pack(table: Path, what: str, cells: Callable[[], Iterable[Iterable[Part]]]) -> list[list[Reference]]:
    """Replace the images in the cells of a table by references to a pack, which is created if it does not exist.

    Args:
        table: Path of the table. A pack of an earlier state of the file is not used.
        what: Column of the cells and everything else that determines which images are packed.
        cells: Function that returns the images of each row. It is called only if there is no pack yet.

    Returns:
        Images of each row: references in place of contents; paths and URLs unchanged.

    Raises:
        RobustTuneError: The pack cannot be written.
    """
    key = _key(table, what)
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{key[:16]}.lock")):  # so that only one of several processes writes it
            if not path.exists():
                _remove_outdated(path)
                size = _write(path, cells())
                log.info("the images in %s were copied to %s (%s), to be read one by one", table, path, decimal(size))
        return Pack(key).references()
    except OSError as error:
        raise RobustTuneError(
            f"the images in {table} cannot be copied to {path.parent} ({error.strerror or error}): make room, or set "
            "XDG_CACHE_HOME to another folder"
        ) from None


def _write(path: Path, cells: Iterable[Iterable[Part]]) -> int:
    """Write a pack and return its size in bytes; see `pack` for the cells."""
    rows, starts, sizes = array("q"), array("q"), array("q")
    places: list[str | None] = []
    digests: list[bytes | None] = []
    row = -1
    with atomic_write(path) as partial, partial.open("wb") as file:
        for row, parts in enumerate(cells):
            for part in parts:
                is_content = isinstance(part, bytes)
                rows.append(row)
                starts.append(file.tell())
                sizes.append(file.write(part) if isinstance(part, bytes) else 0)
                digests.append(hashlib.blake2b(part, digest_size=16).digest() if isinstance(part, bytes) else None)
                places.append(None if is_content else str(part))
        index = {
            "row": pa.array(rows, pa.int64()),
            "start": pa.array(starts, pa.int64()),
            "size": pa.array(sizes, pa.int64()),
            "digest": pa.array(digests, pa.binary(16)),
            "place": pa.array(places, pa.string()),
        }
        position, content = file.tell(), BytesIO()
        table = pa.table(index).replace_schema_metadata({"rows": str(row + 1)})
        feather.write_feather(table, content, compression="uncompressed")
        file.write(content.getvalue() + position.to_bytes(8, "little"))
        return file.tell()


def _key(table: Path, what: str) -> str:
    """Return the key of the pack of a table: a hash of its path, and one of its state and the packed images."""
    try:
        stat = table.stat()
    except OSError as error:
        raise RobustTuneError(f"{table} cannot be read ({error.strerror}): check the file") from None
    state = f"{FORMAT} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino} {what}"
    return f"{_hash(str(table.absolute()))}-{_hash(state)}"


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def _path(key: str) -> Path:
    return cache_home() / "images" / "tables" / f"{key}.pack"


def _remove_outdated(path: Path) -> None:
    """Remove packs and partial files of the same table that were not used for a while, since they take much space."""
    for other in [*path.parent.glob(f"{path.name[:16]}-*"), *path.parent.glob(f".{path.name[:16]}-*.partial")]:
        if time.time() - other.stat().st_mtime > UNUSED:
            other.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file during a ``with`` block. The system releases it if the process ends."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
