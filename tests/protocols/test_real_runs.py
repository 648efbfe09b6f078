"""A protocol of real fits and tests, killed and continued, and its reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from same_run import differences

pytestmark = pytest.mark.exhaustive

CONTENT: dict[str, Any] = {
    "title": "Demo",
    "summary": "conditions",
    "settings": {
        "trainer.max_epochs": 3,
        "trainer.accelerator": "cpu",
        "data.batch_size": 16,
        "data.source.train": 200,
        "data.source.val": 40,
        "data.source.test": 40,
        "data.evaluation.conditions": ["complete", "no_image"],
        "data.cache.folder": "cache",
        "image_encoder.layers": 2,
        "text_encoder.layers": 2,
    },
    "axes": {
        "method": {"MoLT": {"configs": ["demo"]}, "missing": {"configs": ["dtd_mmrl"]}},
        "seed": {1: {"settings": {"seed_everything": 1}}},
    },
    "tests": [
        {"checkpoint": "last"},
        {"report": "text_only", "labels": {"type": "image"}, "settings": {"data.evaluation.conditions": ["no_image"]}},
    ],
}
# `dtd_mmrl` has other settings than the demo.
CONTENT["axes"]["method"]["MoLT"]["settings"] = {
    name: CONTENT["settings"].pop(name)
    for name in [*CONTENT["settings"]]
    if name.startswith(("data.source", "data.evaluation", "image", "text"))
}


def start(folder: Path, *args: str, verb: str = "run") -> subprocess.Popen[str]:
    (folder / "small.yaml").write_text(yaml.safe_dump(CONTENT, sort_keys=False))
    command = [sys.executable, "-m", "robusttune", "protocol", verb, "small.yaml", *args]
    return subprocess.Popen(
        command,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def finish(folder: Path, *args: str, verb: str = "run") -> tuple[int, str]:
    process = start(folder, *args, verb=verb)
    output = process.communicate(timeout=500)[0]
    return process.returncode, output


def wait_for(runner: subprocess.Popen[str], folder: Path, pattern: str) -> Path:
    while runner.poll() is None:
        if found := sorted(folder.glob(pattern)):
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"{pattern} did not appear: {runner.communicate()[0]}")


def test_a_killed_protocol_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """The runner and one of its fits are killed while training; then a second run leaves the same files as without."""
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    for folder in (killed, calm):
        folder.mkdir()
    runner = start(killed)
    last = wait_for(runner, killed, "runs/small/MoLT-seed1-*/0/checkpoints/last.ckpt")
    child = json.loads((last.parents[1] / "process.json").read_text())["pid"]
    runner.send_signal(signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    runner.communicate()
    status, output = finish(killed)
    assert status == 1
    assert "missing-seed1: data/dtd/split_zhou_DescribableTextures.json does not exist" in output
    assert "2 runs: 1 done, 1 data missing" in output
    assert finish(calm)[0] == 1
    for run in sorted(path.name for path in (calm / "runs/small").iterdir() if path.name.startswith("MoLT")):
        ours, theirs = killed / "runs/small" / run / "0", calm / "runs/small" / run / "0"
        assert [path.name for path in ours.parent.iterdir() if path.is_dir()] == ["0"]
        assert differences(ours, theirs) == []
        for report in ("test", "text_only"):
            ours_found, theirs_found = (
                json.loads((folder / f"report/{report}.json").read_text()) for folder in (ours, theirs)
            )
            assert ours_found["conditions"] == theirs_found["conditions"]
            assert ours_found["data"]["samples"] == theirs_found["data"]["samples"]
    before = {path: path.stat().st_mtime_ns for path in (killed / "runs").rglob("*.ckpt")}
    assert finish(killed)[0] == 1
    assert before == {path: path.stat().st_mtime_ns for path in (killed / "runs").rglob("*.ckpt")}
    status, output = finish(killed, verb="report")
    assert status == 0
    assert (killed / "report/small/report.html").is_file()
    assert "data missing" in output


def test_ctrl_c_saves_the_fit_and_the_next_run_continues_it(tmp_path: Path) -> None:
    only = ("--only", "method=MoLT", "seed=1")
    runner = start(tmp_path, *only)
    last = wait_for(runner, tmp_path, "runs/small/MoLT-seed1-*/0/checkpoints/last.ckpt")
    runner.send_signal(signal.SIGINT)
    output = runner.communicate(timeout=100)[0]
    assert runner.returncode == 130
    assert "save their progress and stop" in output
    assert "Ctrl-C has ended robusttune protocol before it was finished: run it again" in output
    log = (last.parents[2] / "fit.log").read_text()
    assert "SIGTERM has ended the run in epoch" in log
    assert "was interrupted, and will be continued" in finish(tmp_path, *only, verb="status")[1]
    assert finish(tmp_path, *only)[0] == 0
    assert "0 goes on after" in (last.parents[2] / "fit.log").read_text()
