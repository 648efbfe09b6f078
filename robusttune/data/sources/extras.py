"""Packages that only some data sets need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from robusttune.errors import RobustTuneError


def extra(module: str, name: str) -> Any:
    """A module of one of this package's extras.

    Raises:
        RobustTuneError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise RobustTuneError(f"this data needs {module}: pip install 'robusttune[{name}]'") from None
