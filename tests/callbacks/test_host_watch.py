"""What a rank says and does when another one has ended."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robusttune import interruption
from robusttune.callbacks import HostWatch, host_watch
from robusttune.errors import RobustTuneError
from robusttune.heartbeat import Ending

HOSTS = ["alpha", "alpha", "beta", "beta", "gamma", "gamma"]
CLOSED = "the connection is closed"


class Left(BaseException):
    """The end of the process, which a test cannot survive."""


@pytest.fixture
def leave(monkeypatch: pytest.MonkeyPatch) -> None:
    def exit_(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(os, "_exit", exit_)
    monkeypatch.setattr(host_watch, "GRACE", 0.2)
    monkeypatch.setattr(host_watch, "AFTER_REPORT", 0.0)


def watch(monkeypatch: pytest.MonkeyPatch, rank: int, job: str | None = None, trains: bool = True) -> Any:
    """A callback of this rank, in a SLURM job or none."""
    monkeypatch.setattr(host_watch, "rank", lambda: rank)
    monkeypatch.setattr(host_watch, "slurm_job", lambda: job)
    callback: Any = HostWatch()
    callback._hosts = HOSTS
    callback._trains = trains
    callback._heartbeat = SimpleNamespace(stopped=False, suspected=SimpleNamespace(is_set=lambda: False))
    return callback


@pytest.mark.parametrize(
    ("job", "ending", "reporters"),
    [
        (None, Ending([2, 3], CLOSED, lost=True), {0, 4}),
        (None, Ending([2], CLOSED, lost=True), {0, 3, 4}),
        ("7", Ending([2, 3], CLOSED, lost=True), {0}),
        ("7", Ending([0], CLOSED, lost=True), {2}),
        ("7", Ending([0], "an image is broken: repair it"), {1}),
    ],
)
def test_one_rank_of_a_log_reports(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    leave: None,
    job: str | None,
    ending: Ending,
    reporters: set[int],
) -> None:
    """Where each host has its own log, one rank of each; in a SLURM job, one of all."""
    monkeypatch.setattr(host_watch, "requeue", lambda job: None)
    gone = {*ending.ranks} | ({0, 1} if ending.lost and 0 in ending.ranks else set())
    for rank in {*range(6)} - gone:
        with pytest.raises(Left) as left:
            watch(monkeypatch, rank, job)._end(ending)
        said = capsys.readouterr().err.splitlines()
        assert (len(said), left.value.args) == ((1, (1,)) if rank in reporters else (0, (0,)))


@pytest.mark.parametrize(
    ("ending", "trains", "expected"),
    [
        (
            Ending([2], CLOSED, lost=True),
            True,
            "lost rank 2 on host beta (the connection is closed): check that host and the network, then start the "
            "command again on all hosts with --resume auto",
        ),
        (
            Ending([2, 3, 4], CLOSED, lost=True),
            False,
            "lost ranks 2, 3 on host beta and rank 4 on host gamma (the connection is closed): check those hosts "
            "and the network, then start the command again on all hosts",
        ),
        (
            Ending([5], "a.jpg is broken: repair it"),
            True,
            "rank 5 on host gamma has ended: a.jpg is broken: repair it",
        ),
    ],
)
def test_a_sentence_names_ranks_and_hosts(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    leave: None,
    ending: Ending,
    trains: bool,
    expected: str,
) -> None:
    with pytest.raises(Left):
        watch(monkeypatch, 0, trains=trains)._end(ending)
    assert capsys.readouterr().err == f"robusttune: error: {expected}\n"


@pytest.mark.parametrize(
    ("restarts", "saved", "problem", "expected"),
    [
        (0, False, None, "SLURM job 7 is requeued, and continues from its last checkpoint"),
        (1, True, None, "SLURM job 7 is requeued, and continues from its last checkpoint"),
        (0, False, "Job is pending execution for job 7", "SLURM job 7 is requeued, and continues from its last check"),
        (1, False, None, "SLURM job 7 is not requeued again, since it has saved nothing since the last time"),
        (0, False, "it was submitted with --no-requeue", "since SLURM job 7 cannot be requeued (it was submitted with"),
    ],
)
def test_a_job_is_requeued_while_it_makes_progress(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    leave: None,
    tmp_path: Path,
    restarts: int,
    saved: bool,
    problem: str | None,
    expected: str,
) -> None:
    """A fit that always loses a rank at the same place does not come back forever."""
    monkeypatch.setattr(host_watch, "requeue", lambda job: problem)
    monkeypatch.setattr(host_watch, "was_requeued", lambda: restarts > 0)
    callback = watch(monkeypatch, 0, "7")
    callback._checkpoint = tmp_path / "last.ckpt"
    if saved:
        callback._checkpoint.touch()
    with pytest.raises(Left):
        callback._end(Ending([2], CLOSED, lost=True))
    assert expected in capsys.readouterr().err


def test_an_end_by_their_own_error_is_left_to_all(monkeypatch: pytest.MonkeyPatch, leave: None) -> None:
    """A signal, or a problem of the data, ends all ranks at about the same time."""
    callback = watch(monkeypatch, 2)
    callback._end(Ending([0]))  # it has finished
    callback._heartbeat.stopped = True
    callback._end(Ending([0], "SIGTERM has ended the run: continue"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RobustTuneError("a.jpg is broken: repair it"), "a.jpg is broken: repair it"),
        (interruption.Stopped(15), "SIGTERM has ended it"),
        (KeyboardInterrupt(), "Ctrl-C has ended it"),
        (ValueError("first\nsecond"), "ValueError: first; its own output says more"),
    ],
)
def test_what_the_others_hear_of_an_error(error: BaseException, expected: str) -> None:
    assert host_watch._reason(error) == expected
