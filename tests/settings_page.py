"""Write the tables of all settings into configs/README.md, from the constructors' signatures and docstrings.

A page has a table between the lines `<!-- settings: GROUP -->` and `<!-- end -->`. The test in `tests/test_readme.py`
fails when a table differs from the code.

    make settings
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from robusttune.commands.lightning_cli import RobustTuneCLI
from robusttune.commands.links import LINKED
from robusttune.data import ImageTextDataModule

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "configs" / "README.md"
BLOCK = re.compile(r"(<!-- settings: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
# For each setting that names a class: the package that offers the classes, and their base class.
KINDS = {
    "source": ("robusttune.data.sources", "Source"),
    "image_encoder": ("robusttune.encoders", "ImageEncoder"),
    "text_encoder": ("robusttune.encoders", "TextEncoder"),
    "model": ("robusttune.tasks", "RobustTask"),
    "fusion": ("robusttune.models", "FusionModel"),
    "adapter": ("robusttune.models", "MMRL"),
}
PREFIXES = {"source": "data.source", "fusion": "model.fusion", "adapter": "model.adapter"}


class Setting(NamedTuple):
    """A row of a table: the path in the configuration, the allowed values, the default and the meaning."""

    path: str
    values: str
    default: str
    meaning: str

    def row(self) -> str:
        """Return the Markdown row."""
        meaning = re.sub(r"(`[^`]*`)|<", lambda found: found[1] or "&lt;", self.meaning)
        cells = (f"`{self.path}`", self.values, self.default, meaning)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def run_settings() -> list[Setting]:
    """Return the settings at the top level of a configuration."""
    found: list[Setting] = []

    def add_argument(name: str, type: Any, default: Any = None, help: str = "") -> None:
        found.append(Setting(name.removeprefix("--"), values_of(type), shown(default), help))

    def ignored(*_: Any, **__: Any) -> None:
        """Stand in for the methods of the parser that add no setting of the run."""

    parser: Any = SimpleNamespace(add_argument=add_argument, add_subclass_arguments=ignored, link_arguments=ignored)
    cli: Any = SimpleNamespace(checked_facts=None)
    RobustTuneCLI.add_arguments_to_parser(cli, parser)
    return found


def settings_of(kind: type, prefix: str, shown_at: dict[type, str] | None = None) -> Iterator[Setting]:
    """Yield the settings of a class, and below each group of settings those of the group.

    Args:
        kind: Class with a documented constructor.
        prefix: Path of the class in the configuration, such as ``data``.
        shown_at: Path of each group that is already in the table. The table refers to it instead of repeating its
            rows. If None, every group is written out.
    """
    meanings, types = argument_docs(kind), type_hints(kind)
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in LINKED:
            continue
        annotation, path = types.get(name, parameter.annotation), f"{prefix}.{name}"
        groups: list[type] = []
        if name not in KINDS:
            groups = [part for part in members(annotation) if inspect.isclass(part) and dataclasses.is_dataclass(part)]
        repeated = next((shown_at[group] for group in groups if shown_at and group in shown_at), None)
        values = "a class, see below" if name in KINDS else "a group" if groups else values_of(annotation)
        values = f"a group, as `{repeated}`" if repeated else values
        yield Setting(path, values, "" if groups else shown(parameter.default), meanings.get(name, ""))
        for group in groups if repeated is None else ():
            if shown_at is not None:
                shown_at[group] = path
            yield from settings_of(group, path, shown_at)


def argument_docs(kind: type) -> dict[str, str]:
    """Return the meaning of each constructor argument, from the docstrings of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(base.__doc__ or ""), re.DOTALL | re.MULTILINE)
        for entry in re.split(r"\n(?=    \S)", section[1].rstrip()) if section else []:
            name, _, meaning = entry.strip().partition(":")
            text = " ".join(meaning.replace("``", "`").split())
            found[name] = text[:1].upper() + text[1:]
    return found


def type_hints(kind: type) -> dict[str, Any]:
    """Return the resolved types of the constructor arguments; those of a dataclass are its fields."""
    try:
        return get_type_hints(kind if dataclasses.is_dataclass(kind) else kind.__init__)  # type: ignore[misc]
    except NameError:  # a name that is imported for type checkers only
        return {}


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the type itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def values_of(annotation: Any) -> str:
    """Return what a user may write for a type."""
    return " or ".join(_value(part) for part in members(annotation))


def _value(annotation: Any) -> str:
    if annotation in (None, type(None)):
        return "null"
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if isinstance(annotation, str):
        return annotation
    if get_origin(annotation) in (list, tuple, dict):
        parts = [_value(part) for part in get_args(annotation) if part is not Ellipsis]
        name: str = get_origin(annotation).__name__
        return f"{'mapping' if name == 'dict' else 'list'} of {' to '.join(dict.fromkeys(parts))}"
    if get_origin(annotation) is not None:
        return "a class or function"
    names = {str: "text", int: "integer", float: "number", bool: "true, false"}
    return names[annotation] if annotation in names else str(annotation.__name__)


def shown(default: Any) -> str:
    """Return a default as it would be written in YAML; empty if the setting is required or a function."""
    if default is inspect.Parameter.empty:
        return "required"
    if repr(default) == "<factory>":
        return ""
    if default is None or isinstance(default, bool):
        return f"`{str(default).lower().replace('none', 'null')}`"
    if isinstance(default, str | int | float | list | tuple | dict):
        return f"`{list(default) if isinstance(default, tuple) else default}`"
    return f"`{default.__name__}`" if callable(default) else f"`{type(default).__name__}`"


def classes_of(name: str) -> list[type]:
    """Return the classes that a setting may name, in the order of their names."""
    package = import_module(KINDS[name][0])
    base = getattr(package, KINDS[name][1])
    offered = [getattr(package, exported) for exported in package.__all__]
    kinds = [kind for kind in offered if inspect.isclass(kind) and issubclass(kind, base)]
    return sorted((kind for kind in kinds if not inspect.isabstract(kind)), key=lambda kind: kind.__name__.lower())


def group_settings(name: str) -> list[tuple[str, list[Setting]]]:
    """Return the tables of a group: a heading, which may be empty, and the settings."""
    if name == "run":
        return [("", run_settings())]
    if name == "data":
        return [("", list(settings_of(ImageTextDataModule, "data", {})))]
    return [
        (f"**`{KINDS[name][0]}.{kind.__name__}`**: {summary(kind)}", list(settings_of(kind, prefix_of(name), {})))
        for kind in classes_of(name)
    ]


def prefix_of(name: str) -> str:
    """Return the path of a setting that names a class."""
    return PREFIXES.get(name, name)


def summary(kind: type) -> str:
    """Return the first paragraph of a class's docstring, as one line of Markdown."""
    text = " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("``", "`").split())
    return text if text.endswith((".", ":")) else f"{text}."


def markdown(name: str) -> str:
    """Return the tables of a group of settings."""
    parts = []
    for heading, settings in group_settings(name):
        parts += [heading, ""] if heading else []
        if settings:
            parts += ["| Setting | Values | Default | Meaning |", "| --- | --- | --- | --- |"]
            parts += [setting.row() for setting in settings] + [""]
    return "\n".join(parts).strip()


def all_paths() -> set[str]:
    """Return the paths of all settings but those of the Trainer."""
    paths = {setting.path for setting in run_settings()}
    paths |= {setting.path for setting in settings_of(ImageTextDataModule, "data")}
    for name in KINDS:
        paths |= {setting.path for kind in classes_of(name) for setting in settings_of(kind, prefix_of(name))}
    return paths


def filled(page: str) -> str:
    """Return the page with the tables that the code gives."""
    return BLOCK.sub(lambda block: f"{block[1]}{markdown(block[2])}\n{block[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} is written")
