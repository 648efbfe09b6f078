"""The exception for errors that the user can correct."""

from __future__ import annotations


class RobustTuneError(Exception):
    """An error that the user can correct. The command line prints its message and exits with status 1.

    Args:
        message: One sentence that names the problem and the remedy.
        reported_elsewhere: True if another process of a distributed run raises the same error and reports it.

    Example:
        >>> raise RobustTuneError("--steps is 0: give at least 1")
        Traceback (most recent call last):
        robusttune.errors.RobustTuneError: --steps is 0: give at least 1
    """

    def __init__(self, message: str, reported_elsewhere: bool = False) -> None:
        super().__init__(message)
        self.reported_elsewhere = reported_elsewhere


def machine_error(error: OSError) -> RobustTuneError | None:
    """Translate an error of the operating system, such as a full disk; return None for one that has no number.

    Example:
        >>> print(machine_error(FileNotFoundError(2, "No such file or directory", "runs/0/config.yaml")))
        runs/0/config.yaml: No such file or directory: check the path, who may use it, and the disk
    """
    if error.errno is None:
        return None
    what = f"{error.filename!s:.300}: {error.strerror}" if error.filename is not None else error.strerror
    return RobustTuneError(f"{what}: check the path, who may use it, and the disk")
