"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """The path with ``~`` expanded; an unknown ``~user`` stays as it is, and does not exist."""
    return Path(os.path.expanduser(path))  # noqa: PTH111, which raises


def cache_home() -> Path:
    """Where this package keeps what can be computed again, as the XDG base directory specification has it."""
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "robusttune"
