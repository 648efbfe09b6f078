"""Commands as forks of a server: what they share with it, and what they have of their own."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robusttune.protocols import processes
from robusttune.protocols.processes import Child

COMMAND = """
import multiprocessing, os, sys
print("imported" if "sheltered" in sys.modules else "not imported", os.environ.get("PLACE"), sys.argv[1:])
print("leader" if os.getsid(0) == os.getpid() else "member", sys.stdin.read() == "", file=sys.stderr)
print("workers:", multiprocessing.get_start_method())
sys.exit(int(sys.argv[1]))
"""
# A runner whose command outlives it. The server starts with the first command, so it has a process of its own.
RUNNER = """
import sys, time
from pathlib import Path
from robusttune.protocols import processes
processes.PROGRAM, processes.PRELOADED = "command", ["sheltered"]
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with (folder / "lock").open("w") as lock:
        for place in "ab":
            child = processes.Child(["3", "x y"], folder / f"{place}.log", lock, {"PLACE": place})
            while child.poll() is None:
                time.sleep(0.01)
            print(child.poll())
"""


@pytest.fixture
def runner(tmp_path: Path) -> subprocess.Popen[str]:
    for name, content in {"command": COMMAND, "sheltered": "", "runner": RUNNER}.items():
        (tmp_path / f"{name}.py").write_text(content)
    environment = {**os.environ, "PYTHONPATH": f"{Path(processes.__file__).parents[2]}:{tmp_path}"}
    environment.pop("PLACE", None)
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "runner.py"), str(tmp_path)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )


def test_commands_share_imports_and_nothing_else(tmp_path: Path, runner: subprocess.Popen[str]) -> None:
    output, _ = runner.communicate("of the runner", timeout=60)
    assert output.split() == ["3", "3"]
    for place in "ab":
        first, *lines = sorted((tmp_path / f"{place}.log").read_text().splitlines())
        assert first == "$ robusttune 3 'x y'"
        workers = multiprocessing.get_all_start_methods()[0]  # as without the server; another server would import again
        assert lines == [f"imported {place} ['3', 'x y']", "leader True", f"workers: {workers}"]


def test_a_failure_is_told_in_the_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_command.py").write_text("raise ValueError('odd')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(processes, "PROGRAM", "failing_command")
    monkeypatch.setattr(processes, "PRELOADED", [])
    with (tmp_path / "lock").open("w") as lock:
        child = Child(["fit"], tmp_path / "log", lock, {})
        while child.poll() is None:
            time.sleep(0.01)
    assert child.sentence() == f"ValueError: odd: see {tmp_path / 'log'}"
