"""Locks of runs: no two processes work on one run, also if one of them is killed and leaves a child behind."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import IO

from robusttune.interruption import slurm_job

LOCK = "lock"


def acquire(folder: Path) -> IO[str] | None:
    """Lock a run for this process and the processes that it starts with the file.

    A lock of flock belongs to the open file. A child that inherits it holds the lock until it ends, so that a child
    whose parent was killed is not run a second time beside it.

    Args:
        folder: Folder of the run; it is created if it is missing.

    Returns:
        Open file that holds the lock, or None if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:  # The file system has no locks.
        return file
    file.truncate(0)
    file.write(json.dumps({"host": os.uname().nodename, "pid": os.getpid(), "slurm_job": slurm_job()}) + "\n")
    file.flush()
    return file


def holder(folder: Path) -> str | None:
    """Return who holds the lock of a run, in words; None if nobody does.

    Args:
        folder: Folder of the run.
    """
    try:
        with (folder / LOCK).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _in_words(file.read())
    except OSError:  # no lock yet
        return None
    return None


def _in_words(written: str) -> str:
    try:
        found = json.loads(written)
        job = f"SLURM job {found['slurm_job']}, " if found["slurm_job"] else ""
        return f"{job}process {found['pid']} on {found['host']}"
    except (ValueError, TypeError, KeyError):  # The holder is about to write it.
        return "another process"
