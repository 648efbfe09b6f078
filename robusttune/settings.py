"""Conversion of settings objects to plain data and back, for checkpoints and comparisons, and to flags."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from inspect import isabstract, signature
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from robusttune.errors import RobustTuneError


def to_plain(settings: Any) -> dict[str, Any]:
    """Convert a settings object to ``{class_path, init_args}`` with numbers, strings, lists and dicts.

    Args:
        settings: Instance of a dataclass that its package exports.

    Example:
        >>> from robusttune.models import MMRL
        >>> to_plain(MMRL())["class_path"]
        'robusttune.models.MMRL'
    """
    cls = type(settings)
    room = cls.__module__.rpartition(".")[0]  # The package, not the module: files may move within a package.
    args = {field.name: argument_to_plain(getattr(settings, field.name)) for field in fields(settings)}
    return {"class_path": f"{room}.{cls.__qualname__}", "init_args": args}


def from_plain(stored: Any, kind: type) -> Any:
    """Undo `to_plain`: construct the settings object from its plain form. The input may be untrusted.

    Args:
        stored: Mapping with ``class_path`` and ``init_args``, as `to_plain` returns it.
        kind: Base class of the settings. The class must be derived from it, and be exported by the base class's
            package; no other class is constructed.

    Raises:
        RobustTuneError: The stored settings name another class, or arguments that the class does not accept.
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
    hints = get_type_hints(cls)
    try:
        return cls(**{name: _as_annotated(value, hints[name]) for name, value in args.items()})
    except (TypeError, ValueError) as error:  # A value has another type than the class expects.
        raise RobustTuneError(f"the settings of {path} in the checkpoint do not work ({error!s:.100})") from None


def argument_to_plain(value: Any) -> Any:
    """Convert the value of a constructor argument: settings objects with `to_plain`, other data with `plain`.

    Example:
        >>> argument_to_plain((0.5, "cosine"))
        [0.5, 'cosine']
    """
    return to_plain(value) if is_dataclass(value) and not isinstance(value, type) else plain(value)


def arguments_from_plain(stored: Any, cls: type, without: Collection[str] = ()) -> dict[str, Any]:
    """Undo `argument_to_plain` for the arguments of a constructor. The input may be untrusted.

    Args:
        stored: Mapping of argument names to plain values.
        cls: Class whose constructor takes the arguments. The annotation of an argument tells which settings object it
            takes, see `from_plain`.
        without: Names of arguments of the constructor that must not be stored.

    Returns:
        Arguments by name.

    Raises:
        RobustTuneError: A name is not an argument of the constructor, or `from_plain` refuses a settings object.
    """
    known = {*signature(cls).parameters} - {*without}
    if not isinstance(stored, dict) or not stored.keys() <= known:
        other = sorted(map(str, {*stored} - known)) if isinstance(stored, dict) else ["settings that are none"]
        raise RobustTuneError(f"the checkpoint gives {cls.__name__} {other[0]:.100}, which this version does not have")
    hints: dict[str, Any] = get_type_hints(cls.__init__)  # type: ignore[misc]
    arguments = {}
    for name, value in stored.items():
        kind = hints[name]
        takes_settings = isinstance(kind, type) and (is_dataclass(kind) or isabstract(kind))
        arguments[name] = from_plain(value, kind) if takes_settings else value
    return arguments


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """List where two plain settings differ, one line a difference: ``key ours, not theirs``.

    A setting that only one of them has is compared with None.

    Args:
        ours: First settings, nested dicts of plain data.
        theirs: Second settings, of the same form.
        path: Prefix of the keys in the lines. Default: none.

    Example:
        >>> differences({"model": {"alpha": 0.7}}, {"model": {"alpha": 0.5}})
        ['model.alpha 0.7, not 0.5']
        >>> differences({"trainer": None, "data": {"seed": 0}}, {"trainer": {"max_epochs": 3, "max_time": None}})
        ['data.seed 0, not None', 'trainer.max_epochs None, not 3']
    """
    if isinstance(ours, dict | None) and isinstance(theirs, dict | None):
        ours, theirs = ours or {}, theirs or {}
        return [
            line
            for key in sorted(ours.keys() | theirs.keys())
            for line in differences(ours.get(key), theirs.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if ours == theirs else [f"{path.replace('.init_args', '')} {ours!r:.60}, not {theirs!r:.60}"]


def _as_annotated(value: Any, hint: Any) -> Any:
    """Undo `argument_to_plain` for a field with the annotation ``hint``.

    A list becomes a tuple if the annotation allows a tuple and no list: `plain` has made it a list.
    """
    kinds = [get_origin(kind) or kind for kind in (hint, *get_args(hint))]
    nested = next((kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)), None)
    if nested is not None and value is not None:
        return from_plain(value, nested)
    return tuple(value) if isinstance(value, list) and tuple in kinds and list not in kinds else value


def plain(value: Any) -> Any:
    """Convert tuples to lists at any depth, so that a value equals its copy that was read back from a file.

    Example:
        >>> plain({"size": (224, 224)})
        {'size': [224, 224]}
    """
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as flags of the command line.

    Args:
        settings: Values by name: numbers, texts, None, lists and dictionaries of these, and paths.

    Raises:
        RobustTuneError: A value is of another type.

    Example:
        >>> as_flags({"trainer.max_epochs": 3, "data.source.val": None, "data.evaluation.conditions": ["complete"]})
        ['--trainer.max_epochs=3', '--data.source.val=null', '--data.evaluation.conditions=["complete"]']
    """
    return [f"--{name}={_as_text(value)}" for name, value in settings.items()]


def _as_text(value: Any) -> str:
    if isinstance(value, str | Path):
        return str(value)
    try:
        return json.dumps(value)
    except TypeError:
        raise RobustTuneError(
            f"a setting has a value of the type {type(value).__name__}: give a number, a text, None, or lists and "
            "dictionaries of these"
        ) from None
