"""Import of optional packages that only some data sources need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from robusttune.errors import RobustTuneError


def import_extra(module: str, name: str) -> Any:
    """Import a module that one of robusttune's extras installs.

    Args:
        module: Name of the module, such as ``h5py``.
        name: Name of the extra, for the message, such as ``hdf5``.

    Returns:
        Imported module.

    Raises:
        RobustTuneError: If the module is not installed.

    Example:
        >>> import_extra("json", "hdf5").loads("[1]")
        [1]
    """
    try:
        return import_module(module)
    except ImportError:
        raise RobustTuneError(f"this data needs {module}: pip install 'robusttune[{name}]'") from None
