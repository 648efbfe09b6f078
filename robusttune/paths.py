"""Paths as people write them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """The path with ``~`` expanded; an unknown ``~user`` stays as it is, and does not exist."""
    return Path(os.path.expanduser(path))  # noqa: PTH111, which raises


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place at the end: what is there is whole, or the old."""
    partial = partial_of(path)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Return the path beside ``path`` to which this process writes what replaces it later."""
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial")


def sync(path: Path) -> None:
    """Wait until the file is on the disk."""
    with path.open("rb") as written:
        os.fsync(written.fileno())


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_hash(*files: Path) -> str:
    """A hash of what files of code say."""
    return hashlib.sha256("".join(path.read_text(encoding="utf-8") for path in files).encode()).hexdigest()


def cache_home() -> Path:
    """Where this package keeps what can be computed again, as the XDG base directory specification has it."""
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "robusttune"
