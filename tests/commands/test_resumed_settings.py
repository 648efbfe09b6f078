"""Settings that a resumed run must have: all of them are compared, also those that only one configuration has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from robusttune.commands.resume import FinishedRunError, other_settings, plain_settings, seed_of, unfinished
from robusttune.run_names import CONFIG, FINISHED

SETTINGS: dict[str, Any] = {
    "seed_everything": 7,
    "trainer": {"max_epochs": 3, "callbacks": None},
    "model": {"class_path": "robusttune.tasks.FusionTask", "init_args": {"alpha": 1.0, "beta": 0.1}},
    "data": {"batch_size": 8, "noise": {"train": None}, "facts": None},
    "resume": "auto",
    "ckpt_path": None,
}


def given(**changes: Any) -> dict[str, Any]:
    return plain_settings(yaml.safe_dump(SETTINGS | changes))


def run(root: Path, number: int = 0, **changes: Any) -> Path:
    """The folder of a run with these settings."""
    folder = root / str(number)
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(yaml.safe_dump(SETTINGS | changes))
    return folder


def test_a_run_of_the_same_settings_is_found(tmp_path: Path) -> None:
    folder = run(tmp_path, ckpt_path="other.ckpt", resume=None, checkpoint_minutes=3)
    assert unfinished(given(), tmp_path) == folder
    assert other_settings(given(), tmp_path) == []
    (folder / FINISHED).touch()
    with pytest.raises(FinishedRunError):
        unfinished(given(), tmp_path)


@pytest.mark.parametrize(
    ("theirs", "ours", "line"),
    [
        ({}, {"monitor": "val/mean/f1"}, "monitor None, not 'val/mean/f1'"),
        ({"monitor": "val/mean/f1"}, {}, "monitor 'val/mean/f1', not None"),
        ({}, {"data": SETTINGS["data"] | {"cache": {"folder": "auto"}}}, "data.cache.folder None, not 'auto'"),
        ({"data": {"batch_size": 8, "seed": 3}}, {}, "data.seed 3, not None"),
        ({"trainer": None}, {}, "trainer.max_epochs None, not 3"),
        ({"trainer": {"max_epochs": 3, "callbacks": [1]}}, {}, "trainer.callbacks [1], not None"),
        ({"model": {"class_path": "robusttune.tasks.FusionTask"}}, {}, "model.alpha None, not 1.0"),
        ({"seed_everything": 8}, {}, "seed_everything 8, not 7"),
    ],
)
def test_a_setting_that_only_one_has_is_a_difference(
    theirs: dict[str, Any], ours: dict[str, Any], line: str, tmp_path: Path
) -> None:
    folder = run(tmp_path, **theirs)
    assert unfinished(given(**ours), tmp_path) is None
    assert f"{folder} is unfinished, and has {line}" in other_settings(given(**ours), tmp_path)


@pytest.mark.parametrize(
    "theirs", [{"monitor": None}, {"data": {"batch_size": 8}}, {"data": {"batch_size": 8, "noise": None}}]
)
def test_null_is_the_same_as_not_given(theirs: dict[str, Any], tmp_path: Path) -> None:
    folder = run(tmp_path, **theirs)
    assert unfinished(given(), tmp_path) == folder


def test_the_newest_run_of_these_settings_is_found(tmp_path: Path) -> None:
    older = run(tmp_path, 9)
    run(tmp_path, 10, name="other")
    assert unfinished(given(), tmp_path) == older
    assert unfinished(given(name="other"), tmp_path) == tmp_path / "10"


def test_a_random_seed_is_not_compared(tmp_path: Path) -> None:
    folder = run(tmp_path)
    assert unfinished(given(seed_everything=True), tmp_path) == folder
    assert seed_of(folder) == 7
