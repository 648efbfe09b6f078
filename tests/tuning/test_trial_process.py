"""A fit that is followed: its values as they come, its end, and the end of its parent. The fit is a small script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robusttune.errors import RobustTuneError
from robusttune.tuning import trial_process
from robusttune.tuning.trial_process import TrialProcess

FIT = """
import sys, time, pathlib
given = dict(arg[2:].split("=") for arg in sys.argv[1:] if "=" in arg)
root, name = given["run_root"], given["name"]
folder = pathlib.Path(root, name, "0")
folder.mkdir()
with open(folder / "metrics.csv", "w") as file:
    print("step,train/loss,val/mean/loss", file=file)
    for value in "0.9", "", "0.5":
        print(f"1,0.1,{value}", file=file, flush=True)
    file.write("2,0.1,0.3")  # a line that is not complete
    file.flush()
    if "--wait" in sys.argv:
        time.sleep(60)
if "--fail" in sys.argv:
    print("robusttune: error: the width is odd: give an even one", file=sys.stderr)
    sys.exit(1)
sys.exit(3 if "--crash" in sys.argv else 0)
"""


@pytest.fixture(autouse=True)
def _script(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(args: list[str], log: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", FIT, *args], stdout=log, stderr=log)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(trial_process, "_start", start)
    monkeypatch.setattr(trial_process, "POLL", 0.02)


def test_values_of_complete_lines(tmp_path: Path) -> None:
    process = TrialProcess([], tmp_path, "trial", "val/mean/loss")
    assert list(process.values()) == [0.9, 0.5]
    assert process.folder == tmp_path / "trial" / "0"


def test_a_failure_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match="^the width is odd: give an even one$"):
        list(TrialProcess(["--fail"], tmp_path, "trial", "val/mean/loss").values())
    with pytest.raises(RobustTuneError, match=r"^the fit ended with status 3 .*log\.txt"):
        list(TrialProcess(["--crash"], tmp_path, "other", "val/mean/loss").values())


def test_it_is_stopped_while_it_trains(tmp_path: Path) -> None:
    process = TrialProcess(["--wait"], tmp_path, "trial", "val/mean/loss")
    assert next(process.values()) == 0.9
    process.stop()
    assert process.process.returncode == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at a parent's end is one of Linux")
def test_it_ends_when_its_parent_is_killed() -> None:
    child = (
        "import robusttune.cli, time, os\n"
        "robusttune.cli.main = lambda: (print(os.getpid(), flush=True), time.sleep(60))\n"
        "from robusttune.tuning.trial_process import run_child\n"
        "run_child()"
    )
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        process.kill()
    end = time.monotonic() + 20
    while _is_alive(number) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _is_alive(number)


def _is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
