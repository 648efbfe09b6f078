"""The one place where errors of libraries become sentences for the user, in every command."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from robusttune.commands.connections import connection_error
from robusttune.commands.wording import argument_error, instantiation_error, trainer_error
from robusttune.commands.workers import worker_error
from robusttune.errors import RobustTuneError


@contextmanager
def user_errors(command: str, given: Mapping[str, Sequence[Any]] | None = None) -> Iterator[None]:
    """Translate errors that the user can correct to `RobustTuneError`. Other errors pass unchanged.

    Args:
        command: Name of the command, for the hint at its help.
        given: Values of each setting in configurations and flags by name, if the command has any.

    Raises:
        RobustTuneError: An argument is invalid, a class cannot be made, Lightning refuses a setting, a loader worker
            has died, another process cannot be reached, or the block itself raises it.

    Example:
        >>> from argparse import ArgumentError
        >>> with user_errors("report"):
        ...     raise ArgumentError(None, "unrecognized arguments: --ot x")
        Traceback (most recent call last):
        robusttune.errors.RobustTuneError: ot is no setting: correct the --config or the flags; robusttune report ...
    """
    try:
        yield
    except ArgumentError as error:
        raise argument_error(str(error), command, given or {}) from None
    except RobustTuneError:
        raise
    except Exception as error:
        explained = worker_error(error) or connection_error(error) or instantiation_error(error) or trainer_error(error)
        if explained is None:
            raise
        raise explained from error
