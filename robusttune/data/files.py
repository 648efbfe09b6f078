"""Which image files are there, without opening any."""

from __future__ import annotations

import os
from collections.abc import Iterable


def missing_files(paths: Iterable[str | None]) -> list[str]:
    """The paths that do not exist, in order; each folder is listed once."""
    listed: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        if path is None:
            continue
        folder, name = os.path.split(os.path.normpath(path))
        if folder not in listed:
            listed[folder] = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()  # noqa: PTH112, PTH208
        if name not in listed[folder]:
            missing.append(path)
    return missing
