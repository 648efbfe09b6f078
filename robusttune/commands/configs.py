"""Configuration files are looked at before they are parsed: what is wrong with one is said with its name and line."""

from __future__ import annotations

from argparse import ArgumentError, ArgumentParser
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from robusttune.errors import RobustTuneError
from robusttune.paths import user_path


def check_configs(args: list[str]) -> set[str]:
    """Check every file that is given as ``--config``.

    Returns:
        The settings that the files name, as they are given on the command line: ``data.source.root``.

    Raises:
        RobustTuneError: one does not exist, is not UTF-8, is no YAML, gives a key twice, or holds no settings.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    try:
        given = parser.parse_known_args(args)[0].config
    except ArgumentError:
        raise RobustTuneError("--config stands without a file: give the path of a YAML file") from None
    return set().union(*(_names(_read(user_path(path))) for path in given))


def _names(settings: Any, prefix: str = "") -> set[str]:
    names = set()
    for key, value in settings.items() if isinstance(settings, dict) else ():
        name = prefix if key == "init_args" else f"{prefix}.{key}".removeprefix(".")
        names |= {name} | _names(value, name)
    return names


def _read(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise RobustTuneError(f"the configuration {path} {what}: give the path of a YAML file")
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except UnicodeDecodeError as error:
        raise RobustTuneError(f"{path} is no UTF-8 text (byte {error.start}): give a YAML file") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RobustTuneError(f"{path}{line} is not YAML ({error.problem}): correct it") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that there is not
        raise RobustTuneError(f"{path} is not YAML ({' '.join(str(error).split())}): give a YAML file") from None
    if not isinstance(settings, dict):
        raise RobustTuneError(f"{path} holds no settings: give a YAML file such as configs/food101.yaml")
    return settings


class _OnceLoader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which no key is given twice; plain YAML forgets the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping
