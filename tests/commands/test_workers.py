"""Loader workers that end, stop, or have no memory to hand batches over: a sentence, and never a run that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from robusttune import interruption
from robusttune.cli import main

pytestmark = pytest.mark.slow  # each case starts processes of its own

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
FIT = [
    *("fit", f"--config={CONFIG}", "--data.source.train=100", "--data.source.val=40", "--data.source.test=40"),
    *("--data.batch_size=16", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", "--data.cache.folder=null"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
]
SMALL = 'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$0" "$@"'
UNCHECKED = "import robusttune.data.workers as w; w.free_shared_memory = lambda: None; "
RUN = "import sys; from robusttune.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(autouse=True)
def handlers_as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGCHLD)}
    yield
    interruption.clear_signal()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORKERS": "SIGKILL"}, "a loader worker has ended unexpectedly"),
        (
            {"WORKERS": "SIGSTOP", "SIGNAL": "SIGTERM"},
            "SIGTERM has ended the run, whose loader workers had delivered",
        ),
    ],
)
def test_workers_that_bring_nothing_end_the_run(
    environment: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(interruption, "BATCH_TIMEOUT", 1)
    for name, value in {"AT_STEP": "1", **environment}.items():
        monkeypatch.setenv(name, value)
    fit = [*FIT, "--data.loader.workers=1", "--data.loader.prefetch=1", f"--run_root={tmp_path}"]
    fit += ["--data.batch_size=4", "--trainer.callbacks+=interrupting.WorkersGone"]
    assert main(fit) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("robusttune: error: ")
    assert message in error


def test_a_test_that_waits_for_workers_is_ended_by_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FIT, f"--run_root={tmp_path}"]) == 0
    run = tmp_path / "demo/0"
    monkeypatch.setenv("SIGNAL", "SIGTERM")
    test = [
        "test",
        f"--config={run}/config.yaml",
        f"--ckpt_path={run}/checkpoints/last.ckpt",
        "--data.loader.workers=1",
    ]
    test += ["--data.batch_size=2", "--trainer.callbacks+=interrupting.WorkersStopped"]
    begun = time.monotonic()
    assert main(test) == 143
    assert time.monotonic() - begun < interruption.BATCH_TIMEOUT
    assert "SIGTERM has ended robusttune test before it was finished" in capsys.readouterr().err


def test_more_workers_than_cores_can_use_are_not_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit = [*FIT, "--data.loader.workers=500", "--trainer.fast_dev_run=true", f"--run_root={tmp_path}"]
    assert main(fit) == 0
    assert caplog.text.count("data.loader.workers is 500, and") == 1


def with_small_shared_memory(size: str, code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A fit where /dev/shm is as small as this; only root can have it."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no namespace can be made")
    command = ["unshare", "-m", "sh", "-c", SMALL.format(size=size), sys.executable, "-c", code, *FIT, *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("size", "code", "flags", "status", "message"),
    [
        (
            "2m",
            RUN,
            ["--data.loader.workers=2"],
            1,
            "error: /dev/shm has 2.1 MB free, and a batch of 64 train samples takes",
        ),
        pytest.param("2m", RUN, [], 0, "it is loaded by 0 workers, not", marks=pytest.mark.slow),
        (
            "400k",
            UNCHECKED + RUN,
            ["--data.loader.workers=2"],
            1,
            "error: /dev/shm is full, the memory through which loader workers pass",
        ),
    ],
)
def test_small_shared_memory(size: str, code: str, flags: list[str], status: int, message: str, tmp_path: Path) -> None:
    done = with_small_shared_memory(
        size, code, "--data.batch_size=64", "--image_encoder.grid=1", *flags, f"--run_root={tmp_path}"
    )
    assert message in done.stderr
    assert done.returncode == status
