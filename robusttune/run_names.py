"""Names of runs, and the folders that belong to them."""

from __future__ import annotations

from pathlib import Path

from robusttune.errors import RobustTuneError
from robusttune.paths import user_path

LONGEST = 200  # bytes; file systems allow 255 for a part of a path, and 4,096 for the whole path


def run_folders(run_root: str | Path, name: str) -> Path:
    """Return the folder below ``run_root`` that contains the numbered folders of all runs with a name.

    Args:
        run_root: Folder of all runs.
        name: Name of the run. It may have slashes: ``sweep/lr1`` is a subfolder of ``sweep``.

    Raises:
        RobustTuneError: The name leads out of ``run_root`` or into another run, or is no valid name of a folder.

    Example:
        >>> run_folders("runs", "sweep/lr1").as_posix()
        'runs/sweep/lr1'
    """
    problem = _problem_with_name(name)
    if problem is not None:
        raise RobustTuneError(f"--name {name!r:.100} {problem}: give a name such as mmrl or sweep/lr1")
    return user_path(run_root) / name


def is_run_number(name: str) -> bool:
    """Return whether the name of a folder is a run number: ASCII digits only.

    Example:
        >>> is_run_number("12"), is_run_number("lr1")
        (True, False)
    """
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
