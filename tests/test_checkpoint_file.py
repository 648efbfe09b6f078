"""A checkpoint is read only as it was written, and only in the format of this version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FACTS

from robusttune.checkpoint_file import ABOUT, FORMAT, KEY, digest_of, read_checkpoint, seal
from robusttune.errors import RobustTuneError

Checkpoint = dict[str, Any]


def checkpoint() -> Checkpoint:
    """A sealed one with something of every kind in it."""
    facts = FACTS._asdict()
    made: Checkpoint = {
        KEY: {name: {} for name in ABOUT} | {"facts": facts, "task": "FusionTask", "settings": {"layers": (1, 2)}},
        "state_dict": {"weight": torch.randn(3, 2, dtype=torch.bfloat16), "scale": torch.tensor(float("nan"))},
        "optimizer_states": [
            {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "foreach": None}]}
        ],
        "callbacks": {"Best": {"score": torch.tensor(0.5), "path": "päth", "empty": torch.empty(0)}},
        "global_step": 7,
    }
    seal(made)
    return made


def write(path: Path, made: Checkpoint) -> Path:
    torch.save(made, path)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = read_checkpoint(write(tmp_path / "a.ckpt", checkpoint()))
    assert found[KEY]["format"] == FORMAT
    again = read_checkpoint(write(tmp_path / "b.ckpt", found))
    seal(again)  # what was read can be changed and sealed again
    assert digest_of(read_checkpoint(write(tmp_path / "c.ckpt", again))) == found[KEY]["digest"]


CHANGES: dict[str, Callable[[Checkpoint], Any]] = {
    "classes in another order": lambda c: c[KEY]["facts"]["class_names"].reverse(),
    "another setting": lambda c: c[KEY]["settings"].update(layers=[1, 3]),
    "a number of the weights": lambda c: c["state_dict"]["weight"][0].add_(1),
    "weights under other names": lambda c: c["state_dict"].update(other=c["state_dict"].pop("weight")),
    "weights in another shape": lambda c: c["state_dict"].update(weight=c["state_dict"]["weight"].T),
    "no optimizer states": lambda c: c.pop("optimizer_states"),
    "an empty optimizer state": lambda c: c["optimizer_states"][0]["state"].clear(),
    "no callbacks": lambda c: c["callbacks"].clear(),
    "another step": lambda c: c.update(global_step=8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_since_is_refused(tmp_path: Path, change: str) -> None:
    made = checkpoint()
    CHANGES[change](made)
    with pytest.raises(RobustTuneError, match="a.ckpt is not as it was written .*: use an unchanged copy"):
        read_checkpoint(write(tmp_path / "a.ckpt", made))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (None, "was written by an older version of robusttune .checkpoint format without number, expected 2.: train"),
        (0, "was written by an older version"),
        (FORMAT + 1, f"has checkpoint format {FORMAT + 1}, and this version of robusttune reads format {FORMAT}: upd"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, number: int | None, message: str) -> None:
    made = checkpoint()
    made[KEY]["format"] = number
    if number is None:
        del made[KEY]["format"], made[KEY]["digest"]
    with pytest.raises(RobustTuneError, match=message):
        read_checkpoint(write(tmp_path / "a.ckpt", made))
