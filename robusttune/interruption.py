"""Handling of the signals that end a run (SIGTERM, SIGHUP, SIGINT, SIGUSR1), without losing training progress.

During training, a handler only records the signal. A handler that saved a checkpoint or waited for other ranks could
deadlock a distributed run, because a rank may be inside a collective operation at that moment. `LastCheckpoint` reads
the recorded signal at the end of each batch. If a loader worker never delivers the next batch, that end is never
reached: then the workers are killed, which ends the run. At all other times there is nothing to save, and a signal ends
the command at once.
"""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAVE_AND_REQUEUE = signal.SIGUSR1
SAVE_AND_STOP = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
AT_ONCE = (signal.SIGTERM, signal.SIGHUP)  # Python itself turns SIGINT into a KeyboardInterrupt.
AGAIN = b"\nThe run is saved at the end of a training step, and stops then; Ctrl-C once more stops it at once.\n"

STARTING = b"\nrobusttune: error: Ctrl-C has ended the command while it started: run it again\n"

STDERR = 2
GRACE = 20  # Seconds between a SIGTERM and the end of a loader worker that the main process does not end earlier.
BATCH_TIMEOUT = 30  # Seconds that a run waits for a batch after a signal, before it kills the loader workers.

_pending: signal.Signals | None = None
_waiting_since: float | None = None
_gave_up: signal.Signals | None = None


class Stopped(BaseException):
    """The end of the command by a signal. It is no `Exception`, so that ``except Exception`` does not catch it.

    Args:
        number: Number of the signal.

    Attributes:
        signal: The signal as `signal.Signals`.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


def pending_signal() -> signal.Signals | None:
    """Return the signal that this process has received and not yet acted on, or None."""
    return _pending


def clear_signal() -> None:
    """Forget the pending signal, after it was acted on."""
    global _pending
    _pending = None


def listen_early() -> None:
    """Handle SIGUSR1 before training starts. Without a handler, the signal would end this process.

    Before training there is nothing to save, so under SLURM the job is put back into the queue at once. Elsewhere the
    signal stays pending until training starts.
    """
    if threading.current_thread() is threading.main_thread():  # Python allows handlers in the main thread only.
        signal.signal(SAVE_AND_REQUEUE, _requeue_or_record)


def listen() -> None:
    """Keep SIGUSR1, SIGTERM, SIGHUP and the first Ctrl-C pending from now on, for `pending_signal` to return.

    A second Ctrl-C raises KeyboardInterrupt. SIGHUP stays ignored where the process was started that way (nohup).
    """
    global _gave_up
    _gave_up = None
    for number in (SAVE_AND_REQUEUE, *SAVE_AND_STOP):
        if number != signal.SIGHUP or not _is_ignored(number):
            signal.signal(number, _record)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Raise `Stopped` on SIGTERM and SIGHUP inside this context, until `listen` is called.

    The handlers from before are restored at the end. Outside the main thread the context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*SAVE_AND_STOP, signal.SIGCHLD)}
    for number in AT_ONCE:
        if not _is_ignored(number):
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None stands for a handler that Python has not set, and cannot restore.
                signal.signal(number, handler)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """End the process on Ctrl-C inside this context, without raising an exception.

    It is meant for imports: a library that is being imported may turn a KeyboardInterrupt into another error.
    """
    if threading.current_thread() is not threading.main_thread() or _is_ignored(signal.SIGINT):
        yield
        return
    before = signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def waiting() -> Iterator[None]:
    """Mark the time inside this context as waiting for a loader worker, and for nothing else."""
    global _waiting_since
    _waiting_since = time.monotonic()
    try:
        yield
    finally:
        _waiting_since = None


def gave_up() -> signal.Signals | None:
    """Return the signal after which the workers were killed because they delivered no batch, or None."""
    return _gave_up


def ignore_signals_in_worker(_: int = 0) -> None:
    """Leave signals to the main process. This runs in a loader worker, as its ``worker_init_fn``.

    SIGUSR1, SIGINT and SIGHUP are ignored. SIGTERM ends the worker after `GRACE` seconds only, so that the main process
    has time to act on its own SIGTERM.

    Args:
        _: Number of the worker, which is not used.
    """
    for number in (SAVE_AND_REQUEUE, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))


def ignore() -> None:
    """Ignore SIGUSR1 from now on.

    After a finished fit there is nothing left to save, and the signal must not end the process with a failure.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(SAVE_AND_REQUEUE, signal.SIG_IGN)


def slurm_job() -> str | None:
    """Return the id of the SLURM job that this process is a task of, or None.

    Returns:
        Job id such as ``"123"``, or ``"123_4"`` for task 4 of a job array.
    """
    if "SLURM_PROCID" not in os.environ:  # srun sets it.
        return None
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def was_requeued() -> bool:
    """Return whether SLURM has requeued this job, so that it has run before."""
    return slurm_job() is not None and int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def requeue(job: str) -> str | None:
    """Have SLURM end the job and start it again later.

    Args:
        job: Id of the job, as `slurm_job` returns it.

    Returns:
        Reason why ``scontrol requeue`` failed, or None if it succeeded.
    """
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"scontrol ended with {done.returncode}"


def _is_ignored(number: int) -> bool:
    """Return whether the process ignores a signal, for example because nohup started it."""
    return signal.getsignal(number) is signal.SIG_IGN


def _stop(number: int, _: FrameType | None) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise an error when the workers end.
    kill_workers()
    raise Stopped(number)


def _leave(number: int, _: FrameType | None) -> None:
    os.write(STDERR, STARTING)
    os._exit(128 + number)


def kill_workers() -> None:
    """Kill the loader workers of this process."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def _end_waiting() -> None:
    """Kill the loader workers if the pending signal is not acted on because no batch arrives for `BATCH_TIMEOUT` s."""
    global _gave_up
    received_at = time.monotonic()
    while _pending is not None:
        since = _waiting_since
        if since is not None and time.monotonic() - max(since, received_at) >= BATCH_TIMEOUT:
            _gave_up = _pending
            kill_workers()  # torch then raises an error in the main thread.
            return
        time.sleep(0.2)


def _record(number: int, _: FrameType | None) -> None:
    global _pending
    _pending = signal.Signals(number)
    if number in SAVE_AND_STOP:
        _thread.start_new_thread(_end_waiting, ())  # Unlike threading.Thread, it takes no lock of the main thread.
    if _pending == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(STDERR, AGAIN)


def _requeue_or_record(number: int, frame: FrameType | None) -> None:
    job = slurm_job()
    if job is None:
        _record(number, frame)
    elif os.environ["SLURM_PROCID"] == "0":
        problem = requeue(job)
        outcome = "it is requeued" if problem is None else f"and it cannot be requeued ({problem})"
        os.write(STDERR, f"SIGUSR1 came before the training of SLURM job {job}: {outcome}\n".encode())
