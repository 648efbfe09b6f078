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
    partial = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def code_hash(*files: Path) -> str:
    """A hash of what files of code say."""
    return hashlib.sha256("".join(path.read_text(encoding="utf-8") for path in files).encode()).hexdigest()


def cache_home() -> Path:
    """Where this package keeps what can be computed again, as the XDG base directory specification has it."""
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "robusttune"
