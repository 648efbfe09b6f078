"""Open regular files only: a pipe or a device blocks its reader, or never ends."""

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
    """The path leads to a folder, a pipe, a device or a socket."""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading in binary mode. Opening never waits, whatever the path leads to.

    Raises:
        NotRegularError: the path leads to something else.
        OSError: the file cannot be opened.
    """
    return open(path, "rb", opener=_open)


def read_regular_text(path: str | Path, encoding: str = "utf-8") -> str:
    """Return the text of a regular file.

    Raises:
        OSError: as `open_regular`.
        UnicodeDecodeError: the file has another encoding.
    """
    with open_regular(path) as file:
        return file.read().decode(encoding)


def refuse_irregular(path: str | Path, mode: int) -> None:
    """Check the mode that `os.stat` gives of a path.

    Raises:
        NotRegularError: it is not the mode of a regular file.
    """
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise NotRegularError(errno.EISDIR, "it is a folder", os.fspath(path))
    raise NotRegularError(errno.EINVAL, f"it is {KINDS.get(stat.S_IFMT(mode), 'no file')}", os.fspath(path))


def what_is_at(path: str | Path) -> str | None:
    """Say what a path leads to where that is no regular file: ``is a pipe``; None for a regular file."""
    try:
        refuse_irregular(path, os.stat(path).st_mode)  # noqa: PTH116
    except NotRegularError as error:
        return f"{error.strerror}".replace("it is", "is", 1)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _open(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe waits for a writer. It changes nothing for regular files.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        refuse_irregular(path, os.fstat(descriptor).st_mode)
    except NotRegularError:
        os.close(descriptor)
        raise
    return descriptor
