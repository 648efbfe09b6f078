"""The runner of protocols: kills at any moment, runners side by side, Ctrl-C, and runs that fail."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from protocols import stand_in_runner

from robusttune.protocols.locks import acquire, holder
from robusttune.protocols.places import environments
from robusttune.protocols.reading import read_states
from robusttune.protocols.state import Progress, RunState

KILLS = int(os.environ.get("KILLS", "8"))


def start(folder: Path, runs: int, parallel: int, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, stand_in_runner.__file__, str(folder), str(runs), str(parallel), *args]
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def states(folder: Path, runs: int) -> list[RunState]:
    return read_states(stand_in_runner.planned(runs), folder, None)


def events(folder: Path) -> list[str]:
    return (folder / "events").read_text().splitlines() if (folder / "events").exists() else []


def check_that_nothing_was_repeated(folder: Path) -> None:
    counts = Counter(line for line in events(folder) if line.startswith("end"))
    assert not [line for line, count in counts.items() if count > 1]
    assert not [line for line in events(folder) if line.startswith(("together", "repeated"))]


def wait_for(folder: Path, beginning: str) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for line in events(folder):
            if line.startswith(beginning):
                return line
        time.sleep(0.01)
    raise AssertionError(f"{beginning} did not happen: {events(folder)}")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_kills_at_any_moment_repeat_and_lose_nothing(tmp_path: Path, seed: int) -> None:
    """SIGKILL of the runner leaves its commands running; those that are killed as well start again."""
    folder, chance = tmp_path / "runs", random.Random(seed)
    for _ in range(KILLS):
        runner = start(folder, 5, 2, "--seconds=0.3")
        time.sleep(chance.uniform(0.2, 0.7))
        runner.kill()
        runner.communicate()
        for line in chance.sample(events(folder), k=min(2, len(events(folder)))):
            if line.startswith("begin"):
                with suppress(ProcessLookupError):
                    os.kill(int(line.split()[-1]), signal.SIGKILL)
    runner = start(folder, 5, 2, "--seconds=0.3")
    assert runner.wait(60) == 0, runner.communicate()
    assert {state.progress for state in states(folder, 5)} == {Progress.DONE}
    check_that_nothing_was_repeated(folder)


def test_a_command_that_outlives_its_runner_is_awaited(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    first = start(folder, 1, 1, "--seconds=1.5")
    wait_for(folder, "begin fit")
    first.kill()
    first.communicate()
    [state] = states(folder, 1)
    assert state.fit.progress is Progress.RUNNING
    assert f"process {first.pid} on" in (state.fit.reason or "")
    second = start(folder, 1, 1, "--seconds=1.5")
    assert "waiting for 1 run that other processes work on" in second.communicate(timeout=60)[0]
    assert second.returncode == 0
    assert [line.split()[:2] for line in events(folder) if line.startswith("begin")] == [
        ["begin", "fit"],
        *[["begin", "test"]] * 2,
    ]
    assert states(folder, 1)[0].progress is Progress.DONE


def test_runners_side_by_side_share_the_runs(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    runners = [start(folder, 6, 2) for _ in range(3)]
    assert [runner.wait(60) for runner in runners] == [0, 0, 0]
    begun = Counter(line.rpartition(" ")[0] for line in events(folder) if line.startswith("begin"))
    assert len(begun) == 18
    assert {*begun.values()} == {1}
    assert {state.progress for state in states(folder, 6)} == {Progress.DONE}
    check_that_nothing_was_repeated(folder)


def test_a_run_that_fails_stops_no_other_and_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    runner = start(folder, 3, 1, "--fail=1")
    output = runner.communicate(timeout=60)[0]
    assert runner.returncode == 0
    assert "2 of 3: seed1 has failed" in output
    assert [state.progress for state in states(folder, 3)] == [Progress.DONE, Progress.FAILED, Progress.DONE]
    assert states(folder, 3)[1].reasons == ["fit: the disk is full: make room"]
    before = len(events(folder))
    assert start(folder, 3, 1).wait(60) == 0
    assert {line.split()[2].partition("-")[0] for line in events(folder)[before:]} == {"seed1"}
    assert [state.progress for state in states(folder, 3)] == [Progress.DONE] * 3


def test_a_killed_command_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    runner = start(folder, 1, 1, "--seconds=30")
    os.kill(int(wait_for(folder, "begin fit").split()[-1]), signal.SIGKILL)
    assert runner.wait(60) == 0
    assert "SIGKILL has ended fit, usually because memory ran out" in states(folder, 1)[0].reasons[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_commands_before_the_runner(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "runs"
    runner = start(folder, 4, 2, "--seconds=30")
    for name in ("begin fit seed0", "begin fit seed1"):
        wait_for(folder, name)
    runner.send_signal(number)
    output = runner.communicate(timeout=60)[0]
    assert runner.returncode == 128 + number
    assert ("save their progress and stop" in output) == (number == signal.SIGINT)
    assert sorted(line for line in events(folder) if line.startswith("stopped")) == [
        "stopped fit seed0-00000000",
        "stopped fit seed1-00000001",
    ]
    assert [state.progress for state in states(folder, 4)] == [Progress.NOT_STARTED] * 4  # no failure is recorded
    assert start(folder, 4, 4).wait(60) == 0
    assert [state.progress for state in states(folder, 4)] == [Progress.DONE] * 4


def test_a_report_of_another_test_does_not_count(tmp_path: Path) -> None:
    """The report has the name of a planned test, but the settings of the test have changed since."""
    folder = tmp_path / "runs"
    assert start(folder, 1, 1).wait(60) == 0
    steps = next(folder.glob("*/steps.json"))
    steps.write_text(steps.read_text().replace("00000000near", "00000000older"))
    assert [step.progress for step in states(folder, 1)[0].tests] == [Progress.NOT_STARTED, Progress.DONE]
    assert start(folder, 1, 1).wait(60) == 0
    assert Counter(line for line in events(folder) if line.startswith("end test")) == {
        "end test seed0-00000000/near": 2,
        "end test seed0-00000000/far": 1,
    }


@pytest.mark.parametrize("file", ["config.yaml", "finished.json"])
@pytest.mark.parametrize("content", ["{", "\0", "[]"], ids=["cut", "zero", "list"])
def test_a_damaged_record_does_not_count(tmp_path: Path, file: str, content: str) -> None:
    folder = tmp_path / "runs"
    assert start(folder, 1, 1).wait(60) == 0
    damaged = next(folder.glob(f"*/0/{file}"))
    damaged.write_text(content)
    [state] = states(folder, 1)
    if file == "finished.json" and content == "[]":
        assert state.fit.progress is Progress.DONE  # Its content is only shown.
        return
    assert state.fit.progress is Progress.NOT_STARTED
    assert f"{damaged.parent} has a damaged" in (state.fit.reason or "")


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    held = acquire(tmp_path / "run")
    assert held is not None
    assert acquire(tmp_path / "run") is None
    assert f"process {os.getpid()} on" in (holder(tmp_path / "run") or "")
    held.close()
    assert holder(tmp_path / "run") is None


def test_runs_at_a_time_share_gpus_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environments(1) == [{}]
    threads = str(max(len(os.sched_getaffinity(0)) // 3, 1))
    assert environments(3) == [{"OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": gpu} for gpu in "474"]
