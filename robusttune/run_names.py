"""Names of runs, of their files and reports, and the folders that belong to them."""

from __future__ import annotations

import re
from pathlib import Path

from robusttune.errors import RobustTuneError
from robusttune.paths import user_path

CONFIG = "config.yaml"  # settings of the run
PROCESS = "process.json"  # process that writes to the folder, or was the last to do so
FINISHED = "finished.json"  # written when the fit has finished
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


def check_report_name(name: str) -> None:
    """Check the name of a report, which becomes part of names of files.

    Args:
        name: Name of the report.

    Raises:
        RobustTuneError: The name is no plain name of a file, or the files of another report have it.

    Example:
        >>> check_report_name("target-DTD")
        >>> check_report_name("../test")
        Traceback (most recent call last):
        robusttune.errors.RobustTuneError: --report '../test' has characters other than letters, digits, ...
    """
    problem = None
    if not re.fullmatch(r"\w[\w.+-]*", name):
        problem = "has characters other than letters, digits, _ . + and -, or begins with one of . + -"
    elif len(name.encode()) > LONGEST:
        problem = f"has {len(name.encode())} bytes, and {LONGEST} are allowed"
    elif name in ("validate", "val") or name.endswith("_classes"):
        problem = "is the name of another report's files"
    if problem is not None:
        raise RobustTuneError(f"--report {name!r:.100} {problem}: give a name such as test or target-DTD")


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
