"""Callbacks that disturb a run at a step that the environment names, so that no setting differs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

from lightning.pytorch.callbacks import Callback


class SignalAt(Callback):
    """Sends ``SIGNAL`` to this process and its workers in training step ``AT_STEP``, counted from 1 over all epochs."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if "AT_STEP" in os.environ and trainer.global_step + 1 == int(os.environ["AT_STEP"]):
            number = signal.Signals[os.environ["SIGNAL"]]
            for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
                os.kill(process, number)  # as SLURM and terminals do, to loader workers as well


class WorkersGone(Callback):
    """Sends ``WORKERS`` (SIGKILL, SIGSTOP) to the workers alone in step ``AT_STEP``, and ``SIGNAL`` to this process."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if "AT_STEP" in os.environ and trainer.global_step + 1 == int(os.environ["AT_STEP"]):
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.Signals[os.environ["WORKERS"]])
            if "SIGNAL" in os.environ:
                os.kill(os.getpid(), signal.Signals[os.environ["SIGNAL"]])


class SignalInTest(Callback):
    """Sends ``SIGNAL`` to this process in the first step of a test or validation."""

    def on_test_batch_start(self, *_: Any) -> None:
        os.kill(os.getpid(), signal.Signals[os.environ["SIGNAL"]])

    on_validation_batch_start = on_test_batch_start


class WorkersStopped(Callback):
    """Stops the workers in the first step of a test; a second later, ``SIGNAL`` comes to this process."""

    def on_test_batch_start(self, *_: Any) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGSTOP)
        threading.Timer(1, os.kill, [os.getpid(), signal.Signals[os.environ["SIGNAL"]]]).start()
