"""Callbacks that disturb a run at a step.

Environment variables name the step and the signal, so the settings are those of an undisturbed run.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

from lightning.pytorch.callbacks import Callback

from robusttune.errors import RobustTuneError
from robusttune.ranks import rank, world_size


class SignalAt(Callback):
    """A callback that sends ``SIGNAL`` to this process and its workers in training step ``AT_STEP``.

    Steps are counted from 1 over all epochs.
    """

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Send the signal if this is the step."""
        if "AT_STEP" in os.environ and trainer.global_step + 1 == int(os.environ["AT_STEP"]):
            number = signal.Signals[os.environ["SIGNAL"]]
            for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)):
                os.kill(process, number)  # SLURM and terminals also send signals to the loader's workers


class LastRankFails(Callback):
    """A callback that raises an error on the last rank in training step ``AT_STEP``."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Raise the error if this is the rank and the step."""
        if trainer.global_step + 1 == int(os.environ["AT_STEP"]) and rank() == world_size() - 1:
            raise RobustTuneError("a page of the atlas is torn: mend it")


class WorkersGone(Callback):
    """A callback that sends ``WORKERS`` (SIGKILL or SIGSTOP) to the loader's workers in training step ``AT_STEP``.

    If ``SIGNAL`` is set, it is sent to this process afterwards.
    """

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Send the signals if this is the step."""
        if "AT_STEP" in os.environ and trainer.global_step + 1 == int(os.environ["AT_STEP"]):
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.Signals[os.environ["WORKERS"]])
            if "SIGNAL" in os.environ:
                os.kill(os.getpid(), signal.Signals[os.environ["SIGNAL"]])


class SignalInTest(Callback):
    """A callback that sends ``SIGNAL`` to this process in each step of a test or validation."""

    def on_test_batch_start(self, *_: Any) -> None:
        """Send the signal; it usually ends the test in its first step."""
        os.kill(os.getpid(), signal.Signals[os.environ["SIGNAL"]])

    def on_validation_batch_start(self, *_: Any) -> None:
        """Send the signal, as in a test."""
        self.on_test_batch_start()


class WorkersStopped(Callback):
    """A callback that stops the workers at the start of a test batch and sends ``SIGNAL`` to this process 1 s later."""

    def on_test_batch_start(self, *_: Any) -> None:
        """Stop the workers and start the timer for the signal."""
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGSTOP)
        threading.Timer(1, os.kill, [os.getpid(), signal.Signals[os.environ["SIGNAL"]]]).start()
