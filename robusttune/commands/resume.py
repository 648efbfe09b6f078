"""Search for the run that a fit resumes: the newest unfinished run with the same settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from robusttune.plain_yaml import read_plain_yaml
from robusttune.regular_files import read_regular_text
from robusttune.run_names import CONFIG, FINISHED, PROCESS, is_run_number
from robusttune.settings import differences

IGNORED_SETTINGS = (
    "ckpt_path",
    "resume",
    "checkpoint_minutes",
    "test_best",
)  # not compared


class FinishedRunError(Exception):
    """The message that the run to resume has already finished. It is no failure.

    Args:
        folder: Folder of the run.

    Attributes:
        test_best: True if the best checkpoint is to be tested.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} is finished, and left as it is: leave --resume out for another run")
        self.folder = folder
        self.test_best = False


def plain_settings(dumped: str) -> dict[str, Any]:
    """Return the settings of a run that identify it, as plain data.

    Args:
        dumped: YAML text of a configuration.

    Example:
        >>> plain_settings("{resume: auto, data: {batch_size: 8, facts: null}}")
        {'data': {'batch_size': 8}}
    """
    settings: dict[str, Any] = read_plain_yaml(dumped)
    settings["data"] = {name: value for name, value in settings["data"].items() if name != "facts"}
    return {name: value for name, value in settings.items() if name not in IGNORED_SETTINGS}


def unfinished(settings: dict[str, Any], root: Path, job: str | None = None) -> Path | None:
    """Return the folder of the newest run with these settings, or None if there is no such run.

    Args:
        settings: Settings from `plain_settings`.
        root: Folder of all runs of this name.
        job: Id of a SLURM job, to count only runs that it has started; None counts all.

    Raises:
        FinishedRunError: That run has already finished.
    """
    for folder in _newest_first(root):
        theirs = _settings_of(folder)
        if theirs is None or _compare(theirs, settings) or (job is not None and _job_of(folder) != job):
            continue
        if (folder / FINISHED).is_file():
            raise FinishedRunError(folder)
        return folder
    return None


def other_settings(settings: dict[str, Any], root: Path) -> list[str]:
    """List the differences between these settings and the newest unfinished run, one line each.

    Args:
        settings: Settings from `plain_settings`.
        root: Folder of all runs of this name.

    Returns:
        One line a difference; no line if there is no unfinished run.
    """
    for folder in _newest_first(root):
        theirs = _settings_of(folder)
        if theirs is not None and not (folder / FINISHED).is_file():
            return [f"{folder} is unfinished, and has {line}" for line in _compare(theirs, settings)]
    return []


def seed_of(folder: Path) -> Any:
    """Return ``seed_everything`` of a run. It is a number even if a random seed was asked for."""
    return (_settings_of(folder) or {}).get("seed_everything")


def last_checkpoint(folder: Path) -> Path | None:
    """Return the path of a run's ``last.ckpt``, or None if it was not written yet."""
    path = folder / "checkpoints/last.ckpt"
    return path if path.is_file() else None


def _newest_first(root: Path) -> Iterator[Path]:
    folders = [path for path in root.iterdir() if is_run_number(path.name)] if root.is_dir() else []
    yield from sorted(folders, key=lambda path: -int(path.name))


def _settings_of(folder: Path) -> dict[str, Any] | None:
    try:
        return plain_settings(read_regular_text(folder / CONFIG))
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):  # no such file, or none of a run
        return None


def _compare(theirs: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """List the differences between the settings of a run and the given ones, also in settings that only one has.

    If a random seed is asked for, seeds are not compared: the run has the number that was drawn.
    """
    if settings.get("seed_everything") is True:
        theirs = theirs | {"seed_everything": True}
    return differences(theirs, settings)


def _job_of(folder: Path) -> str | None:
    try:
        job: str | None = json.loads(read_regular_text(folder / PROCESS))["slurm_job"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # no such file, or an incomplete one
        return None
    return job
