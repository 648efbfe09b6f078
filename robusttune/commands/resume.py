"""Which earlier run a fit goes on with: the newest of the same settings, if it has not come to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from robusttune.callbacks.run_folder import CONFIG, FINISHED, PROCESS
from robusttune.plain_yaml import read_plain_yaml
from robusttune.regular_files import read_regular_text
from robusttune.run_names import is_run_number
from robusttune.settings import differences

PASSING = ("ckpt_path", "resume", "checkpoint_minutes")  # which make no other run


class FinishedRunError(Exception):
    """The run that was to go on has come to its end."""


def plain_settings(dumped: str) -> dict[str, Any]:
    """The settings of a run out of a dumped configuration."""
    settings: dict[str, Any] = read_plain_yaml(dumped)
    settings["data"] = {name: value for name, value in settings["data"].items() if name != "facts"}
    return {name: value for name, value in settings.items() if name not in PASSING}


def unfinished(settings: dict[str, Any], root: Path, job: str | None = None) -> Path | None:
    """The folder of the newest run with these settings; None where there is none.

    Args:
        settings: as `plain_settings` gives them.
        root: the folder of all runs of this name.
        job: count only runs that this SLURM job has begun.

    Raises:
        FinishedRunError: it has come to its end.
    """
    for folder in _newest_first(root):
        theirs = _settings_of(folder)
        if theirs is None or not _agree(theirs, settings) or (job is not None and _job_of(folder) != job):
            continue
        if (folder / FINISHED).is_file():
            raise FinishedRunError(f"{folder} is finished, and left as it is: leave --resume out for another run")
        return folder
    return None


def other_settings(settings: dict[str, Any], root: Path) -> list[str]:
    """By what the newest unfinished run differs from these settings; nothing where there is none."""
    for folder in _newest_first(root):
        theirs = _settings_of(folder)
        if theirs is not None and not (folder / FINISHED).is_file():
            return [f"{folder} is unfinished, and has {line}" for line in differences(theirs, settings)]
    return []


def seed_of(folder: Path) -> Any:
    """``seed_everything`` of the run; a number where a random one was asked for."""
    return (_settings_of(folder) or {}).get("seed_everything")


def last_checkpoint(folder: Path) -> Path | None:
    """What to go on from; None where the run has not come so far."""
    path = folder / "checkpoints/last.ckpt"
    return path if path.is_file() else None


def _newest_first(root: Path) -> Iterator[Path]:
    folders = [path for path in root.iterdir() if is_run_number(path.name)] if root.is_dir() else []
    yield from sorted(folders, key=lambda path: -int(path.name))


def _settings_of(folder: Path) -> dict[str, Any] | None:
    try:
        return plain_settings(read_regular_text(folder / CONFIG))
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):  # none, or not a run's
        return None


def _agree(ours: Any, theirs: Any) -> bool:
    """Whether settings are the same; another version of this package may know more or fewer of them."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(_agree(ours[name], theirs[name]) for name in ours.keys() & theirs.keys())
    return bool(ours == theirs)


def _job_of(folder: Path) -> str | None:
    try:
        job: str | None = json.loads(read_regular_text(folder / PROCESS))["slurm_job"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # none, or not written to its end
        return None
    return job
