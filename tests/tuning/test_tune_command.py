"""The command tune: real fits, one of them killed; wrong input; the test split is never read."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import tiny_flags, write_image, write_table

from robusttune.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "table.yaml"


@pytest.fixture
def flags(text_folder: Path, tmp_path: Path) -> list[str]:
    """Of fits of two epochs on a table whose test split is no table."""
    rows = []
    for number in range(24):
        colour = ("red", "lime")[number % 2]
        write_image(tmp_path / f"{colour}.png", colour=colour)
        rows.append({"image": f"{colour}.png", "text": "soup" if number % 3 else "cake", "label": colour})
    train, val = (write_table(tmp_path, split, rows) for split in ("train", "val"))
    (tmp_path / "test.jsonl").write_bytes(b"\x00 this is no table")
    tables = [f"--data.source.train={train}", f"--data.source.val={val}", f"--data.source.test={tmp_path}/test.jsonl"]
    return [*tiny_flags(Path("none"), text_folder), *tables, "--trainer.max_epochs=2", "--monitor=val/mean/loss"]


def command(tmp_path: Path, flags: list[str], space: str, trials: int) -> list[str]:
    (tmp_path / "space.yaml").write_text(space, encoding="utf-8")
    own = [f"--space={tmp_path}/space.yaml", f"--trials={trials}", f"--out={tmp_path}/tune"]
    return ["tune", f"--config={CONFIG}", *own, *flags]


@pytest.mark.slow
def test_it_is_killed_and_continued_without_the_test_split(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = command(tmp_path, flags, "model.optimizer.lr: {low: 1e-4, high: 1e-1, log: true}", 2)
    with subprocess.Popen([sys.executable, "-m", "robusttune", *args], stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 240
        while not [*tmp_path.glob("tune/runs/trial-*/0/process.json")] and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    killed = next(tmp_path.glob("tune/runs/trial-*"))
    assert main(args) == 0
    finished = [path.parents[1] for path in tmp_path.glob("tune/runs/*/*/finished.json")]
    assert killed in finished  # its values were tried again
    assert len(finished) == 2
    output = capsys.readouterr().out
    assert "2 of 2" in output
    best = Path(output.rpartition("Its model: ")[2].replace("\n", ""))
    assert main(["test", f"--ckpt_path={best}"]) == 1  # the table that no trial has read
    assert "test.jsonl" in capsys.readouterr().err


def test_settings_that_do_not_exist(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, flags, "model.optimizer.lrr: {choices: [0.1, 0.2]}", 9)) == 1
    assert "lrr" in capsys.readouterr().err
    assert not (tmp_path / "tune").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--trials=0"], "count trials: give at least 1"),
        (["--monitor=train/loss"], "monitor is 'train/loss', and trials are compared by it"),
        (["--space=none.yaml"], "the search space none.yaml does not exist"),
        (["--config=none"], "the configuration none does not exist"),
    ],
)
def test_wrong_input(
    tmp_path: Path, flags: list[str], changes: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(tmp_path, flags, "model.optimizer.lr: {choices: [0.1]}", 1), *changes]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "tune").exists()


def test_a_setting_of_the_search_itself(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, flags, "run_root: {choices: [a, b]}", 1)) == 1
    assert "run_root is set by robusttune tune itself" in capsys.readouterr().err
