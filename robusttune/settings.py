"""Settings as plain data, so that a checkpoint can hold them and two of them can be compared."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib import import_module
from inspect import isabstract
from typing import Any

from robusttune.errors import RobustTuneError


def to_plain(settings: Any) -> dict[str, Any]:
    """A settings object as ``{class_path, init_args}`` of numbers, strings, lists and dicts."""
    cls = type(settings)
    room = cls.__module__.rpartition(".")[0]  # which exports it: files in a room may move
    args = {field.name: plain(getattr(settings, field.name)) for field in fields(settings)}
    return {"class_path": f"{room}.{cls.__qualname__}", "init_args": args}


def from_plain(stored: Any, kind: type) -> Any:
    """Return the settings object that `to_plain` was given. What is stored may come from a stranger.

    Args:
        stored: what `to_plain` has returned.
        kind: base class of the settings; only a class that its package exports and that is derived from it is made.

    Raises:
        RobustTuneError: the stored settings name another class, or arguments that the class does not have.
    """
    path, args = (stored.get("class_path"), stored.get("init_args")) if isinstance(stored, dict) else (None, None)
    room = import_module(kind.__module__.rpartition(".")[0])
    named = {f"{room.__name__}.{name}": name for name in room.__all__}
    cls = getattr(room, named[path]) if isinstance(path, str) and path in named else None
    if not (isinstance(cls, type) and issubclass(cls, kind) and is_dataclass(cls)) or isabstract(cls):
        raise RobustTuneError(f"the checkpoint names {path!s:.100}, which this version does not have")
    known = {field.name for field in fields(cls)}
    if not isinstance(args, dict) or not args.keys() <= known:
        other = sorted(map(str, {*args} - known)) if isinstance(args, dict) else ["arguments that are none"]
        raise RobustTuneError(f"the checkpoint gives {path} {other[0]:.100}, which this version does not have")
    try:
        return cls(**args)
    except (TypeError, ValueError) as error:  # a value of another type than the class expects
        raise RobustTuneError(f"the settings of {path} in the checkpoint do not work ({error!s:.100})") from None


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
