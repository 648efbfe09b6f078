"""Null settings: defaults for groups, a refusal for others. jsonargparse itself accepts null for any setting."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import Namespace

from robusttune.commands.links import LINKED
from robusttune.errors import RobustTuneError

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def check_nulls(settings: Namespace, kinds: Mapping[str, Any]) -> None:
    """Check parsed settings, and the arguments of the classes in them, at any depth.

    A null for a group of settings that has a default, such as ``data.training`` or ``model.schedule``, is replaced by
    the default, in place.

    Args:
        settings: All parsed settings.
        kinds: Types of the settings that must not be null, by name.

    Raises:
        RobustTuneError: A setting is null, and its type does not allow it.
    """
    for name, kind in kinds.items():
        if name in settings:
            if settings[name] is None:
                _refuse(name, kind)
            _settle(settings[name], name, kind)


def _settle(value: Any, name: str, kind: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _settle(item, name, Any)
    elif isinstance(value, Namespace) and "class_path" in value:
        if isinstance(value.get("init_args"), Namespace):
            _settle_arguments(value.init_args, f"{name}.init_args", resolve_name(value.class_path))
    elif isinstance(value, Namespace) and callable(kind):
        _settle_arguments(value, name, kind)


def _settle_arguments(arguments: Namespace, name: str, made: Any) -> None:
    """Check the arguments of a class or a function."""
    has_hints: bool = inspect.isclass(made) or inspect.isroutine(made)
    hints = _hints(made) if has_hints else {}
    for key, value in vars(arguments).items():
        kind = hints.get(key, Any)
        if value is None and not takes_null(kind) and key not in LINKED:
            default = _group(_defaults(made).get(key), kind)
            if default is None:
                _refuse(f"{name}.{key}", kind)
            arguments[key] = default
        _settle(value, f"{name}.{key}", kind)


def _refuse(name: str, kind: Any) -> NoReturn:
    shown = name.replace(".init_args", "")
    raise RobustTuneError(f"{shown} is null: leave it out, or give {_instead(kind)}")


def _group(default: Any, kind: Any) -> Any:
    """Return the default of a group as jsonargparse represents it, or None for a single setting, or without a default.

    Args:
        default: Default of the argument, or None.
        kind: Type of the argument.
    """
    if inspect.isroutine(default) and get_origin(kind) is Callable:
        return default
    if not is_dataclass(default) or inspect.isclass(default):
        return None
    hints: dict[str, Any] = _hints(type(default))
    values = {field.name: getattr(default, field.name) for field in fields(default)}
    arguments = Namespace(  # type: ignore[no-untyped-call]
        **{name: _group(value, hints.get(name, Any)) or value for name, value in values.items()}
    )
    if type(default) is kind:
        return arguments
    class_path = f"{type(default).__module__}.{type(default).__qualname__}"
    return Namespace(class_path=class_path, init_args=arguments)  # type: ignore[no-untyped-call]


@cache
def _defaults(made: Any) -> dict[str, Any]:
    """Return the defaults of the arguments of a class or a function."""
    found: dict[str, Any] = {}
    for function in _constructors(made):
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # A function may be written in C.
            continue
        for parameter in parameters:
            if parameter.default is not parameter.empty:
                found.setdefault(parameter.name, parameter.default)
    return found


def _constructors(made: Any) -> list[Any]:
    """Return the functions that take the arguments of a class, its own first, or a function itself."""
    return [vars(base).get("__init__") for base in made.__mro__] if inspect.isclass(made) else [made]


@cache
def _hints(made: Any) -> dict[str, Any]:
    """Return the types of the arguments of a class or a function; ``Any`` for those that are null by default."""
    hints: dict[str, Any] = {}
    for function in _constructors(made):
        try:
            # Only the module of a base class may know the types of a dataclass's fields.
            found = get_type_hints(made if is_dataclass(made) else function)
            parameters = inspect.signature(function).parameters
        except Exception:  # A name may be imported for type checkers only, a function may be written in C, ...
            continue
        for name, hint in found.items():
            null = name in parameters and parameters[name].default is None
            hints.setdefault(name, Any if null else hint)
    return hints


def takes_null(hint: Any) -> bool:
    """Return whether a value of this type may be null; True if the type does not say.

    Example:
        >>> takes_null(int | None), takes_null(int)
        (True, False)
    """
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(map(takes_null, get_args(hint)))
    if origin is Annotated:
        return takes_null(get_args(hint)[0])
    if origin is Literal:
        return None in get_args(hint)
    return hint in (Any, None, NoneType, object) or isinstance(hint, TypeVar | str)


def _instead(kind: Any) -> str:
    """Return what to give in place of null, for the error message."""
    if kind in WORDS:
        return WORDS[kind]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if inspect.isabstract(kind) or get_origin(kind) is Callable:
        return "a class_path"
    if is_dataclass(kind):
        names = [field.name for field in fields(kind)]
        return f"{' and '.join(names)}" if len(names) == 2 else f"{', '.join(names[:3])}{', ...' * (len(names) > 3)}"
    return "its settings" if inspect.isclass(kind) else "a value"
