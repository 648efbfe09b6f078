"""The exception for errors that the user can correct."""


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
