"""Find configuration files and check them before they are parsed, so that an error names the file and the line."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentError, ArgumentParser
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings
from lightning.pytorch.utilities import rank_zero_info

from robusttune.commands.flags import flag_values, normalise_flags
from robusttune.errors import RobustTuneError
from robusttune.escaping import shell
from robusttune.packaged_configs import find_config
from robusttune.paths import user_path
from robusttune.plain_yaml import PlainLoader, find_excess
from robusttune.regular_files import describe_path
from robusttune.yaml_files import read_yaml_file

LOAD = get_loader("yaml")  # jsonargparse's own
CLASS = {"class_path": "the import path of a class", "init_args": "its arguments"}  # what stands for null in a class


class Arguments(NamedTuple):
    """The arguments of a command that takes configurations.

    Attributes:
        args: Command line for jsonargparse, with the paths of the configurations.
        settings: Values of each setting in the configurations, then in the flags, by its name on the command line.
    """

    args: list[str]
    settings: dict[str, list[Any]]


def prepare_arguments(args: list[str]) -> Arguments:
    """Find the configurations on a command line, check them and the flags, and restrict how jsonargparse reads both.

    Args:
        args: Command line.

    Raises:
        RobustTuneError: A file does not exist, is not UTF-8 or not YAML, has a duplicate key or no settings, or is a
            protocol; or a value exceeds a limit, names a pipe, or is a class that is null.
    """
    restrict_parsing()
    flags = [*flag_values(args)]
    args = locate_configs(normalise_flags(args))
    files = [_read(user_path(path)) for path in _configs_in(args)]
    _refuse_pipes([*files, *(flag.value for flag in flags)])
    settings: dict[str, list[Any]] = {}
    for group in (*files, *({flag.name: flag.shown} for flag in flags)):
        for name, value in _by_name(group).items():
            settings.setdefault(name, []).append(value)
    _refuse_endless(settings)
    return Arguments(args, settings)


def locate_configs(args: list[str]) -> list[str]:
    """Replace each name after ``--config`` by the path of its file, and log the path if it differs from the name.

    Args:
        args: The command line, which may name local files, or files that come with the package.

    Raises:
        RobustTuneError: A file does not exist.
    """
    located: list[str] = []
    for arg in args:
        follows = located[-1:] in (["-c"], ["--config"]) and not arg.startswith("-")
        option, given = ("", arg) if follows else _config_option(arg)
        located.append(arg if given is None else f"{option}{_locate(given)}")
    return located


def _config_option(arg: str) -> tuple[str, str | None]:
    """Split ``--config=food101`` into the option and its value; the value is None for anything else."""
    found = re.fullmatch(r"(--config=|-c=?)(.*)", arg, re.DOTALL)
    return (found[1], found[2]) if found and arg != "-c" else ("", None)


def _locate(given: str) -> Path:
    path = find_config(given)
    if path != user_path(given):
        rank_zero_info(f"--config {given}: using {path}")
    return path


def _configs_in(args: list[str]) -> list[str]:
    """Return the paths that stand after ``--config``, in their order."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    try:
        found: list[str] = parser.parse_known_args(args)[0].config
    except ArgumentError:
        raise RobustTuneError("--config has no value: give the path of a YAML file") from None
    return found


def _refuse_pipes(values: Any) -> None:
    """Refuse values that lead to a pipe, deep within lists and mappings: jsonargparse would open it, and wait.

    Raises:
        RobustTuneError: A value is the path of a pipe.
    """
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | dict):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and describe_path(value) == "is a pipe":
            raise RobustTuneError(f"{value:.300} is a pipe: write what it gives to a file, and name that")


def _refuse_endless(settings: dict[str, list[Any]]) -> None:
    """Refuse texts that stand for more than memory holds if they are read as YAML: jsonargparse reads texts so.

    Raises:
        RobustTuneError: A text exceeds the limits of `plain_yaml`.
    """
    for name in sorted(settings, key=lambda name: -name.count(".")):  # the innermost setting with the text
        found = find_excess(settings[name])
        if found is not None:
            text, error = found
            raise RobustTuneError(
                f"{name} is {text[:100]!r}{'...' * (len(text) > 100)}, which is not YAML ({error.problem}): correct it"
            )


def _by_name(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return settings, and the groups of settings, by their names on the command line, ``data.source.root``.

    Raises:
        RobustTuneError: The name or the arguments of a class are null.
    """
    found: dict[str, Any] = {}
    for key, value in settings.items() if isinstance(settings, dict) else ():
        name = f"{prefix}.{key}".removeprefix(".").replace(".init_args.", ".")
        if value is None and str(key).rpartition(".")[2] in CLASS:
            raise RobustTuneError(f"{name} is null: leave it out, or give {CLASS[str(key).rpartition('.')[2]]}")
        if key == "init_args":
            found |= _by_name(value, prefix)
        else:
            found |= {name: value} | _by_name(value, name)
    return found


def _read(path: Path) -> dict[Any, Any]:
    settings = read_yaml_file(path, "configuration")
    if not isinstance(settings, dict):
        raise RobustTuneError(f"{path} has no settings: give a YAML file such as configs/food101.yaml")
    _refuse_protocol(path, settings)
    return settings


def _refuse_protocol(path: Path, settings: dict[Any, Any]) -> None:
    """Refuse a protocol, which lies in a folder ``protocols`` or has the key ``axes``.

    Raises:
        RobustTuneError: It is one.
    """
    if "axes" in settings or path.absolute().parent.name == "protocols":
        raise RobustTuneError(
            f"{path} is a protocol, a matrix of runs, and no configuration of one run: run it by "
            f"robusttune protocol run {shell(path)}"
        )


def restrict_parsing() -> None:
    """Restrict how jsonargparse interprets values, in files and on the command line.

    - YAML has the limits of `plain_yaml`. Values on the command line are YAML, too.
    - Nothing in Python's standard library is imported or called, such as ``os.system`` or ``subprocess.Popen``: no
      setting needs it.
    - A mapping with a ``class_path`` stays a mapping where a setting takes any value (``model_args``).
    """
    denied = sorted(name for name in sys.stdlib_module_names if name.isidentifier())
    set_parsing_settings(instantiate_subclass_spec_in_any=False, import_path_denylist=denied)
    set_loader("yaml", _load_within_limits, exceptions=(yaml.YAMLError,))


def _load_within_limits(text: str) -> Any:
    """Read YAML as jsonargparse does, if neither the document nor a text in it exceeds the limits of `plain_yaml`."""
    PlainLoader(text).get_single_node()
    loaded = LOAD(text)
    found = find_excess(loaded) if isinstance(loaded, list | dict) else None
    if found is not None:
        raise found[1]
    return loaded
