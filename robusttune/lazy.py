"""Attributes of a package that are imported on first use (PEP 562)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the function that a package assigns to ``__getattr__`` to import its attributes on first use.

    Args:
        package: Name of the package, ``__name__`` in its ``__init__.py``.
        modules: Module of each attribute, relative to the package.

    Example:
        >>> get = lazy_attributes("robusttune.corruption", {"Missing": "missing"})
        >>> get("Missing").__name__
        'Missing'
    """

    def get(name: str) -> Any:
        """Import and return an attribute of the package."""
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with warnings.catch_warnings():
            # tqdm says so in a notebook without widgets, and then draws its bars as text.
            warnings.filterwarnings("ignore", "IProgress not found")
            return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get
