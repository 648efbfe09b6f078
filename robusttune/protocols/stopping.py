"""Signals to the runner: it passes them on to its children, which save their progress, and starts nothing more."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from robusttune.interruption import SAVE_AND_REQUEUE, slurm_job
from robusttune.protocols.processes import Child

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STDERR = 2
NOTE = b"\nThe commands that run save their progress and stop; Ctrl-C once more stops them at once.\n"


class Stopping:
    """The signals that this process has received.

    Attributes:
        signal: First signal that asked for the end; None if there was none. In a SLURM job it may be SIGUSR1, which
            SLURM sends ahead of the time limit.
    """

    def __init__(self) -> None:
        self.clear()

    @property
    def requested(self) -> bool:
        """Return whether a signal has asked for the end."""
        return self.signal is not None

    def clear(self) -> None:
        """Forget the signals."""
        self.signal: signal.Signals | None = None
        self._send: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record signals inside this context. A signal that is ignored, as SIGHUP under nohup, stays ignored."""
        numbers = [*ENDING, *([SAVE_AND_REQUEUE] if slurm_job() is not None else [])]
        before = {number: signal.getsignal(number) for number in numbers}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._record)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def forward(self, children: Sequence[Child]) -> None:
        """Ask the children to end, once for each signal: a fit saves its progress. A second Ctrl-C kills them."""
        number, self._send = self._send, None
        if number is not None:
            for child in children:
                child.send(number)

    def _record(self, number: int, _: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._send = signal.Signals(number), signal.SIGTERM
            if number == signal.SIGINT:
                os.write(STDERR, NOTE)
        elif number == signal.SIGINT:
            self._send = signal.SIGKILL
