"""Reading of files that may be compressed with gzip or Zstandard, as a stream of limited size."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from robusttune.data.sources.files import guard_against_changes
from robusttune.errors import RobustTuneError

CODECS = {".gz": "gzip", ".zst": "zstd"}
BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # byte order marks of other encodings than UTF-8
RATIO = 200  # times as large as the compressed file; texts reach 3 to 20
ALWAYS_ALLOWED = 64 * 2**20  # bytes that a file may have uncompressed, whatever its ratio
BLOCK = 1 << 20  # bytes


def split_compression(name: str) -> tuple[str, str | None]:
    """Split the ending of a compressed file off a file name.

    Args:
        name: File name, in lower or upper case.

    Returns:
        Name without the ending, in lower case, and the codec, or None for a file that is not compressed.

    Example:
        >>> split_compression("train.CSV.gz"), split_compression("train.csv")
        (('train.csv', 'gzip'), ('train.csv', None))
    """
    name = name.lower()
    for ending, codec in CODECS.items():
        if name.endswith(ending):
            return name.removesuffix(ending), codec
    return name, None


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file, with or without a byte order mark, and decompress it if its ending says so.

    A file with the byte order mark of UTF-16, as Excel's "Unicode text" has it, is read as UTF-16. Line ends become
    ``\\n``.

    Raises:
        RobustTuneError: If the file cannot be read, changed while it was read, is damaged, truncated or not UTF-8 or
            UTF-16, or is more than `RATIO` times as large as it is compressed.
    """
    codec = split_compression(path.name)[1]
    try:
        with guard_against_changes(path), _open(path, codec) as binary:
            yield io.TextIOWrapper(binary, encoding=BOMS.get(binary.peek(2)[:2], "utf-8-sig"))
    except _DecompressionError as error:
        raise RobustTuneError(f"{path} {error}") from None
    except UnicodeDecodeError as error:
        if error.encoding.startswith("utf-16"):
            raise RobustTuneError(f"{path} is no whole UTF-16 text ({error.reason}): convert it to UTF-8") from None
        with _open(path, codec) as binary:
            place = _first_bad_byte(binary)
        raise RobustTuneError(f"{path} is not UTF-8 (byte {place}): convert it to UTF-8") from None


def check_expansion(path: Path, compressed: int, size: int) -> None:
    """Check that a file does not decompress to an unreasonable size.

    Args:
        path: Path of the file, for the message.
        compressed: Size of the compressed file in bytes.
        size: Number of bytes that it decompresses to, or has so far.

    Raises:
        RobustTuneError: The size is above `ALWAYS_ALLOWED`, and more than `RATIO` times the compressed size.
    """
    if _is_excessive(compressed, size):
        raise RobustTuneError(f"{path} {TOO_LARGE}")


TOO_LARGE = (
    f"decompresses to more than {RATIO} times its size, as no table does: if it is one, decompress it, and give "
    "the file"
)


def _is_excessive(compressed: int, size: int) -> bool:
    return size > ALWAYS_ALLOWED and size > RATIO * compressed


class _DecompressionError(Exception):
    """A compressed file is damaged, truncated or too large. The message continues the path of the file."""


class _Decompressed(io.RawIOBase):
    """The decompressed bytes of a file, whose number is limited.

    Args:
        file: The compressed file.
        codec: Name of the codec in pyarrow.
        compressed: Size of the compressed file in bytes.
    """

    def __init__(self, file: Any, codec: str, compressed: int) -> None:
        self.stream = pa.CompressedInputStream(file, codec)
        self.codec = codec
        self.compressed = compressed
        self.size = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes.

        Raises:
            _DecompressionError: The file is damaged, truncated or too large.
        """
        try:
            block = self.stream.read(len(buffer))
        except (OSError, pa.ArrowException) as error:
            if "Truncated" in str(error):
                raise _DecompressionError("is truncated: fetch or write it again") from None
            reason = str(error).split("\n")[0][:120]
            raise _DecompressionError(f"is no readable {self.codec} file ({reason}): fetch or write it again") from None
        self.size += len(block)
        if _is_excessive(self.compressed, self.size):
            raise _DecompressionError(TOO_LARGE)
        buffer[: len(block)] = block
        return len(block)


@contextmanager
def _open(path: Path, codec: str | None) -> Iterator[Any]:
    """Open a file and yield its uncompressed bytes as a buffered stream."""
    with path.open("rb") as file:
        if codec is None:
            yield file
            return
        size = path.stat().st_size
        if size == 0:
            raise _DecompressionError("is empty: fetch or write it again")
        yield io.BufferedReader(_Decompressed(file, codec, size), BLOCK)


def _first_bad_byte(binary: Any) -> int:
    """Return the position of the first byte that is not UTF-8."""
    position = 0
    for line in binary:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            return position + error.start
        position += len(line)
    return position
