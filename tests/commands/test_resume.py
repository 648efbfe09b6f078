"""A run that is interrupted, however, ends as one that is not: in the same bits."""

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
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
import yaml
from same_run import differences

from robusttune import interruption
from robusttune.callbacks.run_folder import hold
from robusttune.cli import main
from robusttune.tasks.checkpoint_file import read_checkpoint

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
KILLS = int(os.environ.get("KILLS", "5"))
STEPS = 7  # of an epoch
FIT = [
    *("fit", f"--config={CONFIG}", "--data.source.train=100", "--data.source.val=40", "--data.source.test=40"),
    *("--data.batch_size=16", "--trainer.max_epochs=3", "--trainer.log_every_n_steps=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    "--trainer.callbacks+=interrupting.SignalAt",
]


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """Handlers and what was noted are the process's."""
    before = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
    }
    yield
    interruption.clear_signal()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As forks have: sums of several differ in their last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undisturbed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a run that nothing interrupts, by its flags."""
    root, made = tmp_path_factory.mktemp("undisturbed"), {}

    def run(*flags: str) -> Path:
        if flags not in made:
            assert main([*FIT, f"--data.cache.folder={cache}", f"--run_root={root}", *flags]) == 0
            made[flags] = max((root / "demo").iterdir(), key=lambda folder: int(folder.name))  # others may be there
        return made[flags]

    return run


def interrupted(monkeypatch: pytest.MonkeyPatch, fit: list[str], name: str, step: int) -> int:
    with monkeypatch.context() as patch:
        patch.setenv("SIGNAL", name)
        patch.setenv("AT_STEP", str(step))
        return main(fit)


@pytest.mark.parametrize(
    ("name", "step", "saved", "flags"),
    [
        pytest.param("SIGTERM", 1, 1, (), id="the first step"),
        pytest.param("SIGUSR1", 10, 10, (), id="inside of an epoch"),
        pytest.param("SIGINT", 14, 14, (), id="the last step of an epoch"),
        pytest.param("SIGHUP", 4, 4, (), id="a closed terminal"),
        pytest.param("SIGTERM", 9, 6, ("--trainer.accumulate_grad_batches=2",), id="gradients that are accumulated"),
        pytest.param("SIGUSR1", 3, 4, ("--trainer.val_check_interval=3",), id="a validation in between"),
        pytest.param("SIGTERM", 14, 14, ("--trainer.max_steps=18",), id="an epoch of counted steps"),
        pytest.param("SIGTERM", 14, 14, ("--data.loader.workers=1", "--trainer.num_sanity_val_steps=1"), id="workers"),
    ],
)
def test_after_a_signal_a_run_goes_on_as_if_nothing_had_been(
    cache: Path,
    undisturbed: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    step: int,
    saved: int,
    flags: tuple[str, ...],
) -> None:
    expected = undisturbed(*flags)
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


def test_a_closed_terminal_is_nothing_to_a_run_that_nohup_has_started(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert interrupted(monkeypatch, [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}"], "SIGHUP", 4) == 0
    assert (tmp_path / "demo/0/finished.json").exists()


def test_what_is_not_to_go_on_is_left_alone(
    undisturbed: Callable[..., Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A finished run, and runs of other settings; and without being asked to, a fit begins a new run."""
    run = undisturbed()
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


def test_the_difference_to_an_unfinished_run_is_reported(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}"]
    assert interrupted(monkeypatch, fit, "SIGTERM", 3) == 1
    assert interrupted(monkeypatch, [*fit, "--resume=auto", "--model.beta=0.5"], "SIGTERM", 3) == 1
    assert "demo/0 is unfinished, and has model.beta 0.1, not 0.5" in caplog.text
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"0", "1"}


def test_a_name_with_slashes_is_one_folder_to_go_on_in_test_and_report(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that a terminal or a shell would take for something else."""
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


def test_a_run_in_use_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lock is a process's, so another one has to hold it."""
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


def test_a_best_checkpoint_that_the_last_does_not_know_of(
    cache: Path, undisturbed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run can be killed after it has written the one, and before the other."""
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}", "--resume=auto"]
    assert interrupted(monkeypatch, fit, "SIGTERM", 3) == 1
    run = tmp_path / "demo/0"
    shutil.copy(undisturbed() / "checkpoints/last.ckpt", run / "checkpoints/best.ckpt")
    assert main(fit) == 0
    assert differences(run, undisturbed()) == []


def in_a_fork(fit: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Start a fit in a process of its own, which has all imports already; returns its number."""
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)  # others of the pool do not come along
        prepare()
        os._exit(main(fit))
    return pid


def test_a_full_disk_is_reported_and_the_checkpoint_before_is_as_it_was(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The limit on a file's size stands in for the disk's."""
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}", "--resume=auto"]
    assert interrupted(monkeypatch, fit, "SIGTERM", 10) == 1
    folder = tmp_path / "demo/0/checkpoints"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    full = in_a_fork(fit, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)))
    assert os.waitstatus_to_exitcode(os.waitpid(full, 0)[1]) == 1
    assert "cannot be written (File too large), and the previous one is unchanged: make room" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert main(fit) == 0


def lives_until(found: Callable[[], object], pid: int) -> bool:
    """Wait until something is found; False if the process has done all its work before, and nothing else may end it."""
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
def test_killed_at_any_moment_nothing_is_lost(
    cache: Path, undisturbed: Callable[..., Path], tmp_path: Path, number: int
) -> None:
    """Five times by SIGKILL, at random moments and in the middle of writing checkpoints; KILLS=30 for more of it."""
    often = "--checkpoint_minutes=0.002"
    expected = undisturbed(often)
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}", "--resume=auto", often]
    folder, process, rng = tmp_path / "demo/0/checkpoints", tmp_path / "demo/0/process.json", random.Random(number)
    seconds = json.loads((expected / "finished.json").read_text())["seconds"]
    had: set[str] = set()
    kills = 0
    for _ in range(50):
        pid, end = in_a_fork(fit), time.monotonic() + rng.uniform(0, seconds / 3)
        begun = lives_until(lambda pid=pid: f'"pid": {pid}' in process.read_text() if process.exists() else False, pid)
        meant = (lambda: [*folder.glob(".*.partial")]) if kills % 2 else (lambda end=end: time.monotonic() > end)
        if not begun or not lives_until(meant, pid):  # it was faster: once more from the start
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


def test_a_random_seed_is_that_of_the_run(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit = [*FIT, f"--data.cache.folder={cache}", f"--run_root={tmp_path}", "--seed_everything=true", "--resume=auto"]
    assert interrupted(monkeypatch, fit, "SIGTERM", 3) == 1
    seed = yaml.safe_load((tmp_path / "demo/0/config.yaml").read_text())["seed_everything"]
    assert main(fit) == 0
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["0"]
    assert caplog.text.count(f"Seed set to {seed}") == 2
