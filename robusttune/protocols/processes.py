"""The commands ``fit`` and ``test`` as child processes of the runner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from robusttune.escaping import shell

COMMAND = [sys.executable, "-m", "robusttune"]
ERROR = "robusttune: error: "
TAIL = 100_000  # bytes of a log that are searched for its error


class Child:
    """A running command.

    It has a session of its own, so that a Ctrl-C on the terminal reaches the runner alone, which then asks the child to
    save its progress.

    Args:
        args: Arguments after ``robusttune``.
        log: File that the output is appended to.
        lock: Open file that holds the lock of the run; the child inherits it.
        environment: Environment variables that differ from those of this process.
    """

    def __init__(self, args: Sequence[str], log: Path, lock: IO[str], environment: Mapping[str, str]) -> None:
        self.verb, self.log = args[0], log
        self._began = time.monotonic()
        with log.open("a", encoding="utf-8") as out:
            out.write(f"$ robusttune {' '.join(map(shell, args))}\n")
            out.flush()
            self._start = out.tell()
            self._process = subprocess.Popen(
                [*COMMAND, *args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while the command runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command, or SIGKILL to all of its processes."""
        try:
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        except ProcessLookupError:  # It has just ended.
            return

    def sentence(self) -> str:
        """Return why the command has failed: the sentence that it has printed, or the last line of its output."""
        status = self._process.returncode
        if status < 0:
            name = signal.Signals(-status).name
            memory = ", usually because memory ran out" if name == "SIGKILL" else ""
            return f"{name} has ended {self.verb}{memory}: see {self.log}"
        with self.log.open("rb") as file:
            file.seek(max(self._start, self.log.stat().st_size - TAIL))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(ERROR)]
        if errors:
            return errors[-1].removeprefix(ERROR)
        return f"{lines[-1][:300] if lines else f'{self.verb} ended with status {status}'}: see {self.log}"
