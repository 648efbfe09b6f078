"""Flags on the command line: their normalisation before jsonargparse parses them, and their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import yaml

from robusttune.plain_yaml import read_plain_yaml

NULL = re.compile(r"--(\w+(?:\.\w+)+)\.(\w+)=(?:null|~)")  # null for a setting at least two groups deep


def normalise_flags(args: list[str]) -> list[str]:
    """Rewrite flags that jsonargparse would understand in another way.

    - Abbreviations of ``--config`` are written out, so that its value is recognised as the name of a configuration.
    - A null for a setting inside a group inside a class becomes a mapping. jsonargparse 4.53 converts it to the text
      ``None`` on the way to the class.

    Args:
        args: The command line.

    Example:
        >>> normalise_flags(["--conf", "food101", "--model.schedule.warmup_rate", "null"])
        ['--config', 'food101', '--model.schedule={warmup_rate: null}']
    """
    normalised: list[str] = []
    for arg in args:
        option, equals, value = arg.partition("=")
        if option.startswith("--co") and "--config".startswith(option):
            arg = f"--config{equals}{value}"
        if arg in ("null", "~") and normalised and NULL.fullmatch(f"{normalised[-1]}=null".replace(".init_args.", ".")):
            arg = f"{normalised.pop()}=null"
        found = NULL.fullmatch(arg.replace(".init_args.", "."))
        normalised.append(f"--{found[1]}={{{found[2]}: null}}" if found else arg)
    return normalised


def without_flags(args: list[str], names: Collection[str]) -> list[str]:
    """Remove the flags of some settings, of the settings inside them, and their values.

    Example:
        >>> without_flags(["--model", "MMRLTask", "--model.beta=0", "--data.seed=1"], ["model"])
        ['--data.seed=1']
    """
    return _filtered(args, lambda name: name not in names)


def with_flags(args: list[str], names: Collection[str]) -> list[str]:
    """Keep the flags of some settings, of the settings inside them, and their values; remove all others.

    Example:
        >>> with_flags(["fit", "--model", "MMRLTask", "--data.seed=1", "--config", "demo.yaml"], ["data", "config"])
        ['--data.seed=1', '--config', 'demo.yaml']
    """
    begin = next((number for number, arg in enumerate(args) if arg.startswith("-")), len(args))
    return _filtered(args[begin:], lambda name: name in names)


def _filtered(args: list[str], keep: Callable[[str], bool]) -> list[str]:
    """Return the flags whose setting, or the group around it, is to be kept, with their values."""
    kept: list[str] = []
    is_removed = False  # whether the last flag has been removed
    for arg in args:
        if arg.startswith("--"):
            option = arg.partition("=")[0]
            is_removed = not keep(re.split(r"[.+]", option.removeprefix("--"))[0])
            kept += [] if is_removed else [arg]
            is_removed = is_removed and arg == option
        else:
            kept += [] if is_removed else [arg]
            is_removed = False
    return kept


class Flag(NamedTuple):
    """A flag that has a value.

    Attributes:
        name: Name of the setting.
        text: Value as it stands on the command line.
        value: The text read as YAML; the text itself if it is not YAML.
    """

    name: str
    text: str
    value: Any

    @property
    def shown(self) -> Any:
        """Return the value for messages: a mapping, null or the text."""
        return self.value if self.value is None or isinstance(self.value, dict) else self.text


def flag_values(args: list[str]) -> Iterator[Flag]:
    """Yield the flags of a command line that have values.

    Example:
        >>> [(flag.name, flag.value) for flag in flag_values(["fit", "--data.seed=3", "--name", "a: b: c"])]
        [('data.seed', 3), ('name', 'a: b: c')]
    """
    following: list[str | None] = [*args[1:], None]
    for arg, after in zip(args, following, strict=True):
        option, equals, value = arg.partition("=")
        if not option.startswith("--") or (not equals and (after is None or after.startswith("--"))):
            continue
        text = value if equals else str(after)
        try:
            loaded = read_plain_yaml(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            loaded = text
        yield Flag(option[2:].rstrip("+"), text, loaded)
