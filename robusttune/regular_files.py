"""Reading of regular files only. A pipe or a device can block its reader or never end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegularError(OSError):
    """The error for a path that leads to a folder, a pipe, a device or a socket."""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading in binary mode. Opening never blocks, not even on a pipe.

    Raises:
        NotRegularError: The path does not lead to a regular file.
        OSError: The file cannot be opened.
    """
    return open(path, "rb", opener=_open)


def read_regular_text(path: str | Path, encoding: str = "utf-8") -> str:
    """Return the text of a regular file.

    Raises:
        OSError: The file cannot be opened or read, see `open_regular`.
        UnicodeDecodeError: The file has another encoding.
    """
    with open_regular(path) as file:
        return file.read().decode(encoding)


def refuse_irregular(path: str | Path, mode: int) -> None:
    """Check that a file mode is that of a regular file.

    Args:
        path: Path of the file, for the error.
        mode: ``st_mode`` of the path, from `os.stat` or `os.fstat`.

    Raises:
        NotRegularError: The mode is that of something else.
    """
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise NotRegularError(errno.EISDIR, "it is a folder", os.fspath(path))
    raise NotRegularError(errno.EINVAL, f"it is {KINDS.get(stat.S_IFMT(mode), 'no file')}", os.fspath(path))


def describe_path(path: str | Path) -> str | None:
    """Describe a path that is not a regular file, such as ``is a pipe``; return None for a regular file.

    Example:
        >>> describe_path("/")
        'is a folder'
    """
    try:
        refuse_irregular(path, os.stat(path).st_mode)  # noqa: PTH116
    except NotRegularError as error:
        return f"{error.strerror}".replace("it is", "is", 1)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # A path with a NUL character raises ValueError.
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _open(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe waits for a writer. The flag changes nothing for regular files.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        refuse_irregular(path, os.fstat(descriptor).st_mode)
    except NotRegularError:
        os.close(descriptor)
        raise
    return descriptor
