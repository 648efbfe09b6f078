"""Settings as plain data, so that a checkpoint can hold them and two of them can be compared."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any

from robusttune.errors import RobustTuneError


def to_plain(settings: Any) -> dict[str, Any]:
    """A settings object as ``{class_path, init_args}`` of numbers, strings, lists and dicts."""
    cls = type(settings)
    room = cls.__module__.rpartition(".")[0]  # which exports it: files in a room may move
    args = {field.name: plain(getattr(settings, field.name)) for field in fields(settings)}
    return {"class_path": f"{room}.{cls.__qualname__}", "init_args": args}


def from_plain(stored: dict[str, Any]) -> Any:
    """The settings object that `to_plain` was given. Only classes of this package are made.

    Raises:
        RobustTuneError: it names a class that is not there.
    """
    module, _, name = stored["class_path"].rpartition(".")
    try:
        if not module.startswith("robusttune."):
            raise ImportError(name)
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise RobustTuneError(
            f"the checkpoint names {stored['class_path']}, which this version does not have"
        ) from None
    return cls(**stored["init_args"])


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two plain settings differ, as ``key: ours, not theirs``."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            line
            for key in sorted(ours.keys() | theirs.keys())
            for line in differences(ours.get(key), theirs.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if ours == theirs else [f"{path.replace('.init_args', '')} {ours!r:.60}, not {theirs!r:.60}"]


def plain(value: Any) -> Any:
    """The value with lists for tuples, as it comes back from a file."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
