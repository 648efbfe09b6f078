"""Interrupted runs: when resumed, they end with bit-identical checkpoints and metrics."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
import yaml
from same_run import differences

from robusttune import interruption
from robusttune.callbacks.run_folder import hold
from robusttune.checkpoint_file import read_checkpoint
from robusttune.cli import main

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
KILLS = int(os.environ.get("KILLS", "5"))
STEPS = 7  # of an epoch
FIT = [
    *("fit", f"--config={CONFIG}", "--data.source.train=100", "--data.source.val=40", "--data.source.test=40"),
    *("--data.batch_size=16", "--trainer.max_epochs=3", "--trainer.log_every_n_steps=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--image_encoder.layers=2", "--text_encoder.layers=2", "--data.evaluation.conditions=[complete,no_image]"),
    "--trainer.callbacks+=interrupting.SignalAt",
]


@pytest.fixture(autouse=True)
def restored_signals() -> Iterator[None]:
    """Restore the signal handlers, and forget signals that were received: both belong to the process."""
    before = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
    }
    yield
    interruption.clear_signal()
    for number, handler in before.items():
        signal.signal(number, handler)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def uninterrupted(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function from flags to the folder of an uninterrupted run with them."""
    root, made = tmp_path_factory.mktemp("uninterrupted"), {}

    def run(*flags: str) -> Path:
        if flags not in made:
            assert main([*FIT, f"--data.cache.folder={cache}", f"--run_root={root}", *flags]) == 0
            made[flags] = max((root / "demo").iterdir(), key=lambda folder: int(folder.name))  # others may be there
        return made[flags]

    return run


ACCUMULATED = ("--trainer.accumulate_grad_batches=2",)
BETWEEN = ("--trainer.val_check_interval=3",)
COUNTED = ("--trainer.max_steps=18",)
ADAPTED = ("--image_encoder.lora={rank: 2}", "--text_encoder.lora.rank=2")
WITH_WORKERS = ("--data.loader.workers=1", "--trainer.num_sanity_val_steps=1")


def interrupted(monkeypatch: pytest.MonkeyPatch, fit: list[str], name: str, step: int) -> int:
    with monkeypatch.context() as patch:
        patch.setenv("SIGNAL", name)
        patch.setenv("AT_STEP", str(step))
        return main(fit)


@pytest.mark.parametrize(
    ("name", "step", "saved", "flags"),
    [
        pytest.param("SIGTERM", 1, 1, (), id="the first step", marks=pytest.mark.slow),
        pytest.param("SIGUSR1", 10, 10, (), id="inside of an epoch"),
        pytest.param("SIGINT", 14, 14, (), id="the last step of an epoch", marks=pytest.mark.slow),
        pytest.param("SIGHUP", 4, 4, (), id="a closed terminal", marks=pytest.mark.slow),
        pytest.param("SIGTERM", 9, 6, ACCUMULATED, id="gradients that are accumulated", marks=pytest.mark.slow),
        pytest.param("SIGUSR1", 3, 4, BETWEEN, id="a validation in between", marks=pytest.mark.slow),
        pytest.param("SIGTERM", 14, 14, COUNTED, id="an epoch of counted steps", marks=pytest.mark.slow),
        pytest.param("SIGTERM", 14, 14, WITH_WORKERS, id="workers", marks=pytest.mark.slow),
        pytest.param("SIGTERM", 10, 10, ADAPTED, id="updates of the encoders", marks=pytest.mark.slow),
    ],
)
def test_resumed_run_equals_an_uninterrupted_one(
    cache: Path,
    uninterrupted: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    step: int,
    saved: int,
    flags: tuple[str, ...],
) -> None:
    expected = uninterrupted(*flags)
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}", "--resume=auto", *flags]
    assert interrupted(monkeypatch, fit, name, step) == 1
    assert f"error: {name} has ended the run" in capsys.readouterr().err
    run = tmp_path / "demo/0"
    assert not (run / "finished.json").exists()
    assert read_checkpoint(run / "checkpoints/last.ckpt")["global_step"] >= min(step, saved)
    assert main(fit) == 0
    assert [path.name for path in run.parent.iterdir()] == ["0"]
    assert differences(run, expected) == []
    done = [json.loads((folder / "finished.json").read_text())["steps"] for folder in (run, expected)]
    assert done[0] == done[1]


@pytest.mark.slow
def test_nohup_ignores_a_closed_terminal(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert interrupted(monkeypatch, [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}"], "SIGHUP", 4) == 0
    assert (tmp_path / "demo/0/finished.json").exists()


def test_finished_runs_and_runs_with_other_settings_are_not_resumed(
    uninterrupted: Callable[..., Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without ``--resume`` a fit always starts a new run."""
    run = uninterrupted()
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={run.parents[1]}"]
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    before = {path.name for path in run.parent.iterdir()}
    assert main([*fit, "--resume=auto"]) == 0
    assert f"{run} is finished" in caplog.text
    assert main([*fit, "--resume=auto", "--trainer.max_epochs=1"]) == 0
    assert main([*fit, "--trainer.max_epochs=1"]) == 0
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN  # it has nothing left to do
    assert len({path.name for path in run.parent.iterdir()} - before) == 2
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


@pytest.mark.slow
def test_log_names_the_setting_that_differs_from_an_unfinished_run(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}"]
    assert interrupted(monkeypatch, fit, "SIGTERM", 3) == 1
    assert interrupted(monkeypatch, [*fit, "--resume=auto", "--model.beta=0.5"], "SIGTERM", 3) == 1
    assert "demo/0 is unfinished, and has model.beta 0.1, not 0.5" in caplog.text
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"0", "1"}


@pytest.mark.slow
def test_run_name_with_slashes_works_in_every_command(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name also has characters with a meaning for terminals and shells."""
    monkeypatch.chdir(tmp_path)
    name = "sweep/exp [lr=1] $x"
    fit = [*FIT, f"--data.cache.folder={cache}", f"--name={name}", "--resume=auto"]
    assert interrupted(monkeypatch, fit, "SIGTERM", 10) == 1
    run = tmp_path / "runs" / name / "0"
    assert read_checkpoint(run / "checkpoints/last.ckpt")["global_step"] == 10
    assert main(fit) == 0
    assert [path for path in tmp_path.rglob("*") if path.is_dir() and path.name.isdigit()] == [run]
    assert {path.name for path in run.iterdir() if "events.out" not in path.name} >= {
        *("checkpoints", "config.yaml", "finished.json", "metrics.csv", "process.json"),
    }
    assert [path.parent for path in tmp_path.rglob("events.out*")] == [run] * 2
    told = capsys.readouterr().out.split("Test it: robusttune ")[1].splitlines()[0]
    assert main([*shlex.split(told), "--data.cache.folder=null"]) == 0
    assert main(["report", "runs", "--out=compared"]) == 0
    out = capsys.readouterr().out
    assert "excluded" not in out
    assert name in (tmp_path / "compared/report.csv").read_text()


def holding(folder: Path, told: Connection) -> None:
    """Hold the folder of a run until the process is killed."""
    with hold(folder):
        told.send("held")
        signal.pause()


@pytest.mark.slow
def test_a_run_in_use_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hold the lock in another process: a process never locks out itself."""
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}", "--resume=auto"]
    assert interrupted(monkeypatch, fit, "SIGTERM", 3) == 1
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("fork").Process(target=holding, args=(tmp_path / "demo/0", theirs))
    other.start()
    assert ours.recv() == "held"
    assert main(fit) == 1
    assert f'"pid": {other.pid}' in capsys.readouterr().err
    other.kill()
    other.join()
    assert main(fit) == 0


@pytest.mark.slow
def test_best_checkpoint_newer_than_the_last_one(
    cache: Path, uninterrupted: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run can be killed between writing the two files."""
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}", "--resume=auto"]
    assert interrupted(monkeypatch, fit, "SIGTERM", 3) == 1
    run = tmp_path / "demo/0"
    shutil.copy(uninterrupted() / "checkpoints/last.ckpt", run / "checkpoints/best.ckpt")
    assert main(fit) == 0
    assert differences(run, uninterrupted()) == []


def in_a_fork(fit: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Start a fit in a forked process, which needs no imports, and return its process id."""
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)  # others of the pool do not come along
        prepare()
        os._exit(main(fit))
    return pid


@pytest.mark.slow
def test_full_disk_is_an_error_and_keeps_the_previous_checkpoint(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of a file stands in for a full disk."""
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}", "--resume=auto"]
    assert interrupted(monkeypatch, fit, "SIGTERM", 10) == 1
    folder = tmp_path / "demo/0/checkpoints"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    full = in_a_fork(fit, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)))
    assert os.waitstatus_to_exitcode(os.waitpid(full, 0)[1]) == 1
    assert "cannot be written (File too large), and the previous one is unchanged: make room" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert main(fit) == 0


def wrote(path: Path, text: str) -> bool:
    """Return whether a file exists and contains a text."""
    return path.exists() and text in path.read_text()


def lives_until(found: Callable[[], object], pid: int) -> bool:
    """Wait until ``found`` returns a true value; return False if the process finishes before."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0
            return False
        if found():
            return True
        time.sleep(0.0005)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(-(-KILLS // 5)))
def test_run_killed_at_any_moment_loses_no_checkpoint(
    cache: Path, uninterrupted: Callable[..., Path], tmp_path: Path, number: int
) -> None:
    """Five times by SIGKILL, at random moments and in the middle of writing checkpoints; KILLS=30 for more of it."""
    often = "--checkpoint_minutes=0.002"
    expected = uninterrupted(often)
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}", "--resume=auto", often]
    folder, process, rng = tmp_path / "demo/0/checkpoints", tmp_path / "demo/0/process.json", random.Random(number)
    seconds = json.loads((expected / "finished.json").read_text())["seconds"]
    had: set[str] = set()
    kills = 0
    for _ in range(50):
        pid, end = in_a_fork(fit), time.monotonic() + rng.uniform(0, seconds / 3)
        running = f'"pid": {pid}'
        begun = lives_until(partial(wrote, process, running), pid)

        def is_time_to_kill(end: float = end, writing: int = kills % 2) -> bool:
            return any(folder.glob(".*.partial")) if writing else time.monotonic() > end

        if not begun or not lives_until(is_time_to_kill, pid):  # it was faster: once more from the start
            shutil.rmtree(tmp_path / "demo")
            had = set()
            continue
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found = {path.name for path in folder.glob("*.ckpt")}
        assert found >= had
        had = found
        for name in had:
            read_checkpoint(folder / name)
        kills += 1
        if kills == 5:
            break
    assert kills == 5
    assert main(fit) == 0
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert differences(folder.parent, expected) == []


@pytest.mark.slow
def test_resumed_run_keeps_its_random_seed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}", "--seed_everything=true", "--resume=auto"]
    assert interrupted(monkeypatch, fit, "SIGTERM", 3) == 1
    seed = yaml.safe_load((tmp_path / "demo/0/config.yaml").read_text())["seed_everything"]
    assert main(fit) == 0
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["0"]
    assert caplog.text.count(f"Seed set to {seed}") == 2
