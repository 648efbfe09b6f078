"""A fit that is followed: its values as they come, and its end. The fit is a small script."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from robusttune.errors import RobustTuneError
from robusttune.protocols import locks, processes
from robusttune.tuning import trial_process
from robusttune.tuning.trial_process import TrialProcess

FIT = """
import sys, time, pathlib
given = dict(arg[2:].split("=") for arg in sys.argv[1:] if "=" in arg)
root, name = given["run_root"], given["name"]
folder = pathlib.Path(root, name, "0")
folder.mkdir(exist_ok=True)
with open(folder / "metrics.csv", "w") as file:
    print("step,train/loss,val/mean/loss", file=file)
    for value in "0.9", "", "0.5":
        print(f"1,0.1,{value}", file=file, flush=True)
    file.write("2,0.1,0.3")  # a line that is not complete
    file.flush()
    time.sleep(float(given.get("wait", 0)))
if "--fail" in sys.argv:
    print("robusttune: error: the width is odd: give an even one", file=sys.stderr)
    sys.exit(1)
sys.exit(3 if "--crash" in sys.argv else 0)
"""


@pytest.fixture(autouse=True)
def _script(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("program")
    (folder / "stand_in_for_fit.py").write_text(FIT)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(processes, "PROGRAM", "stand_in_for_fit")
    monkeypatch.setattr(processes, "PRELOADED", [])
    monkeypatch.setattr(trial_process, "POLL", 0.02)


def test_values_of_complete_lines(tmp_path: Path) -> None:
    process = TrialProcess([], tmp_path, "trial", "val/mean/loss")
    assert list(process.values()) == [0.9, 0.5]
    assert process.folder == tmp_path / "trial" / "0"


def test_a_failure_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match="^the width is odd: give an even one$"):
        list(TrialProcess(["--fail"], tmp_path, "trial", "val/mean/loss").values())
    with pytest.raises(RobustTuneError, match=r"^fit ended with status 3: see .*fit\.log"):
        list(TrialProcess(["--crash"], tmp_path, "other", "val/mean/loss").values())


def test_it_is_stopped_while_it_trains(tmp_path: Path) -> None:
    process = TrialProcess(["--wait=60"], tmp_path, "trial", "val/mean/loss")
    assert next(process.values()) == 0.9
    process.stop()
    assert process._child.poll() == -signal.SIGTERM


def test_a_fit_that_a_killed_search_has_left_is_awaited(tmp_path: Path) -> None:
    left = TrialProcess(["--wait=0.5"], tmp_path, "trial", "val/mean/loss")
    left._lock.close()  # as the end of the search does; the fit still holds the lock
    assert locks.acquire(tmp_path / "trial") is None
    began = time.monotonic()
    process = TrialProcess([], tmp_path, "trial", "val/mean/loss")
    assert time.monotonic() - began > 0.2
    assert list(process.values()) == [0.9, 0.5]
