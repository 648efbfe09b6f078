"""Checkpoint files are whole or not there."""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FACTS

from robusttune.callbacks import SafeCheckpointIO
from robusttune.checkpoint_file import ABOUT, KEY, read_checkpoint, seal
from robusttune.errors import RobustTuneError

FORK = multiprocessing.get_context("fork")
WHOLE: dict[str, Any] = {KEY: {name: {} for name in ABOUT} | {"facts": FACTS._asdict()}, "state_dict": {}}


def sealed(**parts: Any) -> dict[str, Any]:
    """A checkpoint with these parts."""
    checkpoint = {**WHOLE, **parts}
    seal(checkpoint)
    return checkpoint


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    io, path = SafeCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint(sealed(step=1), path)
    with pytest.raises(Exception, match="pickle"):
        io.save_checkpoint({**WHOLE, "step": 2, "bad": (lambda: None)}, path)
    assert io.load_checkpoint(path)["step"] == 1
    assert [found for found in tmp_path.iterdir() if found.is_file()] == [path]


def test_a_full_disk_is_reported_and_leaves_the_old_file(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk's."""
    path = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint(sealed(step=1), path)

    def fill() -> None:
        torch.set_num_threads(1)  # the parent's thread pool does not survive a fork
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(RobustTuneError, match=f"the checkpoint {path} cannot be written"):
            SafeCheckpointIO().save_checkpoint({**WHOLE, "values": torch.zeros(500_000)}, path)

    process = FORK.Process(target=fill)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert read_checkpoint(path)["step"] == 1
    assert [found for found in tmp_path.iterdir() if found.is_file()] == [path]


def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path) -> None:
    def save_for_ever(first: Event) -> None:
        torch.set_num_threads(1)  # the parent's thread pool does not survive a fork
        for step in itertools.count(1):
            found = sealed(step=step, values=torch.full((500_000,), step))
            SafeCheckpointIO().save_checkpoint(found, tmp_path / "last.ckpt")
            first.set()

    for delay in (0.0, 0.004, 0.011):
        first = FORK.Event()
        process = FORK.Process(target=save_for_ever, args=(first,))
        process.start()
        assert first.wait(60)
        time.sleep(delay)
        process.kill()
        process.join()
        checkpoint = read_checkpoint(tmp_path / "last.ckpt")
        assert torch.equal(checkpoint["values"], torch.full((500_000,), checkpoint["step"]))
