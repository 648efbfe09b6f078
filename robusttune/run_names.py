"""Names of runs, and the folders that they stand for."""

from __future__ import annotations

from pathlib import Path

from robusttune.errors import RobustTuneError
from robusttune.paths import user_path

LONGEST = 200  # bytes; file systems allow 255 for a part of a path, and 4,096 for all of it


def run_folders(run_root: str | Path, name: str) -> Path:
    """Return the folder that holds the numbered folders of all runs of this name: a folder below ``run_root``.

    Args:
        run_root: Folder of all runs.
        name: Name of the run; ``sweep/lr1`` is in a folder of its own inside of ``sweep``.

    Raises:
        RobustTuneError: the name leads out of the folder, into another run, or cannot be the name of a folder.
    """
    problem = _problem_with_name(name)
    if problem is not None:
        raise RobustTuneError(f"--name {name!r:.100} {problem}: give a name such as mmrl or sweep/lr1")
    return user_path(run_root) / name


def is_run_number(name: str) -> bool:
    """Return whether a folder is numbered as those of runs are."""
    return name.isascii() and name.isdigit()


def _problem_with_name(name: str) -> str | None:
    parts = name.split("/")
    if not name.strip():
        return "is empty"
    if name.startswith("/"):
        return "is an absolute path"
    if not name.isprintable() or "\\" in name:
        return "has a backslash, a line break or another character that cannot be printed"
    if any(not part.strip() for part in parts):
        return "has an empty part, beside a slash"
    if {".", ".."} & {*parts}:
        return "has a part . or .., which is another folder's name"
    if any(map(is_run_number, parts[1:])):
        return "has a number after a slash, which is how the folders of single runs are named"
    if len(name.encode()) > LONGEST:
        return f"has {len(name.encode())} bytes, and {LONGEST} are allowed"
    return None
