"""How commands end: with output that nobody reads, a full disk, Ctrl-C or a signal, and never with a traceback."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from fakes import tiny_flags
from small_disk import small_disk

from robusttune.cli import main
from robusttune.paths import digest_of_file

CONFIG = Path(__file__).parents[2] / "configs" / "food101.yaml"
MODULE = [sys.executable, "-m", "robusttune"]


@pytest.fixture(scope="module")
def run(food101: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tested run."""
    root = tmp_path_factory.mktemp("runs")
    flags = [*tiny_flags(food101, text_folder), f"--run_root={root}"]
    assert main(["fit", f"--config={CONFIG}", *flags]) == 0
    assert main(verb("test", root / "food101/0")) == 0
    return root / "food101/0"


@pytest.fixture
def handlers_as_they_were() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def verb(name: str, run: Path, *flags: str) -> list[str]:
    return [name, f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt", *flags]


def files(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of each file."""
    return {path.name: (digest_of_file(path), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def full() -> TextIO:
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")


def closed_pipe() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed_file() -> TextIO:
    file = io.StringIO()
    file.close()
    return file


OUTPUTS = {
    "full disk": (full, "standard output cannot be written (No space left on device)"),
    "closed pipe": (closed_pipe, ""),
    "closed file": (closed_file, "standard output cannot be written (I/O operation on closed file)"),
    "ASCII": (lambda: io.TextIOWrapper(io.BytesIO(), "ascii"), ""),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "output",  # a closed file is reported in the same way as a full disk
    [pytest.param(name, marks=[pytest.mark.slow] if name == "closed file" else []) for name in OUTPUTS],
)
def test_output_that_fails_is_no_failure_of_a_test(
    output: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(run / "report")
    make, message = OUTPUTS[output]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", make())
        assert main(verb("test", run)) == 0
    error = capsys.readouterr().err
    assert message in error
    assert ("standard output" in error) == bool(message)
    assert "Traceback" not in error
    after = files(run / "report")
    assert after.keys() >= before.keys()
    assert all(after[name][1] > before[name][1] for name in before)


def test_output_that_fails_is_no_failure_of_a_fit(
    food101: Path, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", full())
    assert main(["fit", f"--config={CONFIG}", *tiny_flags(food101, text_folder), f"--run_root={tmp_path}"]) == 0
    assert (tmp_path / "food101/0/finished.json").exists()


def test_a_full_disk_leaves_the_report_before(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        copy = shutil.copytree(run, disk / "run")
        before = files(copy / "report")
        room = shutil.disk_usage(disk).free
        (disk / "filling").write_bytes(b"x" * (room - 4096))
        assert main(verb("test", copy)) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert "/run/report cannot be written (No space left on device), and the previous one is unchanged" in error
        assert files(copy / "report") == before
        (disk / "filling").unlink()
        assert main(verb("test", copy)) == 0
        assert files(copy / "report").keys() == before.keys()


def test_a_pipe_that_is_closed_ends_a_command_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*MODULE, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_only_printed_fails_on_a_full_disk() -> None:
    with full() as output:
        done = subprocess.run([*MODULE, "--help"], stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("robusttune: error: standard output cannot be written (No space left on device)")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_while_torch_is_imported(run: Path) -> None:
    process = subprocess.Popen([*MODULE, *verb("test", run)], stderr=subprocess.PIPE, text=True)
    maps = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in maps.read_text() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "\nrobusttune: error: Ctrl-C has ended the command while it started: run it again\n"


@pytest.mark.usefixtures("handlers_as_they_were")
@pytest.mark.parametrize(("name", "called", "status"), [("SIGINT", "Ctrl-C", 130), ("SIGTERM",) * 2 + (143,)])
@pytest.mark.parametrize("command", ["test", "validate"])
def test_a_signal_ends_an_evaluation_and_leaves_the_report_before(
    command: str,
    name: str,
    called: str,
    status: int,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files(run / "report")
    monkeypatch.setenv("SIGNAL", name)
    assert main(verb(command, run, "--trainer.callbacks+=interrupting.SignalInTest")) == status
    error = capsys.readouterr().err
    assert error.endswith(
        f"robusttune: error: {called} has ended robusttune {command} before it was finished: run it again\n"
    )
    assert "Traceback" not in error
    assert files(run / "report") == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_other_commands(
    number: signal.Signals,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("robusttune.report.report_on", lambda *_: os.kill(os.getpid(), number))
    assert main(["report", str(run), f"--out={tmp_path}/out"]) == 128 + number
    error = capsys.readouterr().err
    assert "has ended robusttune report before it was finished: run it again" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
