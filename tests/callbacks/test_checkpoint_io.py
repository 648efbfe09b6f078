"""Checkpoint files are whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fakes import FACTS

from robusttune.callbacks import SafeCheckpointIO
from robusttune.tasks.checkpoint import ABOUT, KEY, read_checkpoint

WHOLE = {KEY: {name: {} for name in ABOUT} | {"facts": FACTS._asdict()}, "state_dict": {}}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    io, path = SafeCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({**WHOLE, "step": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        io.save_checkpoint({**WHOLE, "step": 2, "bad": (lambda: None)}, path)
    assert io.load_checkpoint(path)["step"] == 1
    assert [found for found in tmp_path.iterdir() if found.is_file()] == [path]


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk's."""
    path = tmp_path / "last.ckpt"
    SafeCheckpointIO().save_checkpoint({**WHOLE, "step": 1}, path)
    code = f"""
import resource, signal, torch
from robusttune.callbacks import SafeCheckpointIO
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
SafeCheckpointIO().save_checkpoint({{**{WHOLE!r}, "values": torch.zeros(500_000)}}, "{path}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"RobustTuneError: the checkpoint {path} cannot be written" in done.stderr
    assert read_checkpoint(path)["step"] == 1
    assert [found for found in tmp_path.iterdir() if found.is_file()] == [path]


def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path) -> None:
    code = f"""
import torch
from robusttune.callbacks import SafeCheckpointIO
io, step = SafeCheckpointIO(), 0
while True:
    step += 1
    io.save_checkpoint({{**{WHOLE!r}, "step": step, "values": torch.full((500_000,), step)}}, "{tmp_path}/last.ckpt")
    print(step, flush=True)
"""
    for delay in (0.0, 0.004, 0.011):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        checkpoint = read_checkpoint(tmp_path / "last.ckpt")
        assert torch.equal(checkpoint["values"], torch.full((500_000,), checkpoint["step"]))
