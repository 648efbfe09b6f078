"""File paths: expansion of user input, atomic writes, digests, and the cache folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """Return a path with ``~`` expanded. An unknown ``~user`` is left unchanged, as a path that does not exist.

    Example:
        >>> user_path("runs/0").as_posix()
        'runs/0'
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111, because Path.expanduser raises for an unknown user


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Replace a file atomically: yield a temporary path in the same folder, and rename it to ``path`` at the end.

    If the block raises, the temporary file is removed, and the earlier file stays unchanged.
    """
    partial = partial_of(path)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Return the temporary path in the same folder for a file that will replace ``path``.

    It contains the host name and the process id, so that two processes never share it.
    """
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial")


def sync(path: Path) -> None:
    """Flush a file from the operating system's cache to the disk, and wait for it."""
    with path.open("rb") as written:
        os.fsync(written.fileno())


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_home() -> Path:
    """Return the folder for data that can be recomputed, following the XDG Base Directory Specification.

    It is ``$XDG_CACHE_HOME/robusttune``, by default ``~/.cache/robusttune``.
    """
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "robusttune"
