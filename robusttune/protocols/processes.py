"""The commands ``fit`` and ``test`` as child processes of the runner.

Most of the time of a short command goes into the imports of torch and Lightning. So Python's fork server makes them
once, and each command is a fork of it, with a session, an environment and a log of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, reduction
from pathlib import Path
from typing import IO, Any

from robusttune.escaping import shell
from robusttune.garbage import uncollected

PROGRAM = "robusttune"  # module that runs as __main__
PRELOADED = ["robusttune.commands.trainer"]  # what the fork server imports
ERROR = "robusttune: error: "
TAIL = 100_000  # bytes of a log that are searched for its error
FORKS = multiprocessing.get_context("forkserver")


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
        _start_server(environment)
        with log.open("a", encoding="utf-8") as out:
            out.write(f"$ robusttune {' '.join(map(shell, args))}\n")
            out.flush()
            self._start = out.tell()
            files = (_Inherited(out), _Inherited(lock))
            self._process = FORKS.Process(target=_run, args=(PROGRAM, list(args), files, dict(environment)))
            self._process.start()

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while the command runs."""
        return self._process.exitcode

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command, or SIGKILL to all of its processes."""
        assert self._process.pid is not None
        if self.poll() is not None:
            return
        try:
            (os.killpg if number == signal.SIGKILL else os.kill)(self._process.pid, number)
        except ProcessLookupError:  # It has just ended.
            return

    def sentence(self) -> str:
        """Return why the command has failed: the sentence that it has printed, or the last line of its output."""
        status = self._process.exitcode
        assert status is not None
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


class _Inherited:
    """An open file that a child gets; there it is the number of its descriptor.

    Args:
        file: Open file.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _descriptor, (reduction.DupFd(self._file.fileno()),)


def _descriptor(duplicate: Any) -> int:
    number: int = duplicate.detach()
    return number


def _start_server(environment: Mapping[str, str]) -> None:
    """Start the fork server if it does not run. It ends after this process and all of its children.

    Args:
        environment: Environment variables of the first child: libraries read the number of threads when imported.
    """
    FORKS.set_forkserver_preload(PRELOADED)
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        with _without_streams():
            forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _without_streams() -> Iterator[None]:
    """Replace the standard streams by the null device in this context.

    A process that is started here does not keep a pipe open that this process writes to: the reader would wait for it.
    """
    saved = {}
    for stream in range(3):
        with suppress(OSError):  # It is closed.
            saved[stream] = os.dup(stream)
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for stream in saved:
            os.dup2(nothing, stream)
        yield
    finally:
        os.close(nothing)
        for stream, file in saved.items():
            os.dup2(file, stream)
            os.close(file)


def _run(program: str, args: list[str], files: tuple[int, int], environment: dict[str, str]) -> None:
    """Run a command in this process, which is a fork of the server, and exit with its status."""
    os.setsid()
    log, _ = files
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # Loader processes are forks of this one, not of a new server.
    sys.argv = [program, *args]
    with uncollected():  # The garbage collector need not examine what the server has imported.
        pass
    runpy.run_module(program, run_name="__main__", alter_sys=True)
