"""The signals that end a run: noted from its first moment on, and acted on where nothing is lost.

While a model is trained, a handler only takes a note, for one that saves, or that waits for other ranks, can lock up a
distributed run: a rank may be inside of a collective operation at that moment. `LastCheckpoint` reads the note at the
ends of batches. Where a loader worker does not bring the next batch, that end would never come: the workers are killed
then, which ends the run. At all other times there is nothing to save, and a signal ends the command at once.
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
AT_ONCE = (signal.SIGTERM, signal.SIGHUP)  # Python itself makes a KeyboardInterrupt of SIGINT
AGAIN = b"\nThe run is saved at the end of a training step, and stops then; Ctrl-C once more stops it at once.\n"

STARTING = b"\nrobusttune: error: Ctrl-C has ended the command while it started: run it again\n"

STDERR = 2
GRACE = 20  # seconds after which a worker ends that was left alone with a SIGTERM
PATIENCE = 30  # seconds for which a run that is to end waits for a worker to bring a batch

_noted: signal.Signals | None = None
_waiting_since: float | None = None
_gave_up: signal.Signals | None = None


class Stopped(BaseException):
    """A signal has ended the command. No handler of errors may take it for one.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


def pending_signal() -> signal.Signals | None:
    """The signal that has come to this process and was not yet acted on."""
    return _noted


def clear_signal() -> None:
    """It was acted on."""
    global _noted
    _noted = None


def listen_early() -> None:
    """From now on SIGUSR1 does not end this process, as it would by itself.

    Before training there is nothing to save, and so under SLURM the job is put back into the queue at once.
    """
    if threading.current_thread() is threading.main_thread():  # no other may
        signal.signal(SAVE_AND_REQUEUE, _requeue_or_note)


def listen() -> None:
    """From now on SIGUSR1, SIGTERM, SIGHUP and the first Ctrl-C wait until they are asked for."""
    global _gave_up
    _gave_up = None
    for number in (SAVE_AND_REQUEUE, *SAVE_AND_STOP):
        if number != signal.SIGHUP or not _is_ignored(number):
            signal.signal(number, _note)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise `Stopped`, until `listen` is called; handlers are restored at the end."""
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
            if handler is not None:  # which Python has not set
                signal.signal(number, handler)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Within it Ctrl-C ends the process: libraries that are being imported may make another error of an exception."""
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
    """Within it the process waits for a loader worker, and nothing else."""
    global _waiting_since
    _waiting_since = time.monotonic()
    try:
        yield
    finally:
        _waiting_since = None


def gave_up() -> signal.Signals | None:
    """Return the signal after which the workers were killed, since they brought no batch; else None."""
    return _gave_up


def leave_to_main(_: int = 0) -> None:
    """In a loader's worker: signals that all processes of a run get are acted on by the main one.

    SIGTERM is also how workers are ended where a run breaks off; so they only wait until the main one has had time.
    """
    for number in (SAVE_AND_REQUEUE, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))


def ignore() -> None:
    """The run is finished: SIGUSR1 has nothing left to save, and must not end what is left of the process as failed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(SAVE_AND_REQUEUE, signal.SIG_IGN)


def slurm_job() -> str | None:
    """The SLURM job that this process is a task of; of an array, the member."""
    if "SLURM_PROCID" not in os.environ:  # which is set by srun
        return None
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def was_requeued() -> bool:
    """Whether this SLURM job has run before."""
    return slurm_job() is not None and int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def requeue(job: str) -> str | None:
    """Have SLURM end the job, and start it again later. Returns what speaks against it, or None."""
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"scontrol ended with {done.returncode}"


def _is_ignored(number: int) -> bool:
    """Return whether the process was started so that it ignores a signal, as nohup starts it."""
    return signal.getsignal(number) is signal.SIG_IGN


def _stop(number: int, _: FrameType | None) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise an error of its own
    _kill_workers()
    raise Stopped(number)


def _leave(number: int, _: FrameType | None) -> None:
    os.write(STDERR, STARTING)
    os._exit(128 + number)


def _kill_workers() -> None:
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def _end_waiting() -> None:
    """Kill the workers where a signal is not acted on, since one of them brings nothing."""
    global _gave_up
    noted_at = time.monotonic()
    while _noted is not None:
        since = _waiting_since
        if since is not None and time.monotonic() - max(since, noted_at) >= PATIENCE:
            _gave_up = _noted
            _kill_workers()  # upon which torch raises an error in the main thread
            return
        time.sleep(0.2)


def _note(number: int, _: FrameType | None) -> None:
    global _noted
    _noted = signal.Signals(number)
    if number in SAVE_AND_STOP:
        _thread.start_new_thread(_end_waiting, ())  # takes no lock that the main thread may hold
    if _noted == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(STDERR, AGAIN)


def _requeue_or_note(number: int, frame: FrameType | None) -> None:
    job = slurm_job()
    if job is None:
        _note(number, frame)
    elif os.environ["SLURM_PROCID"] == "0":
        problem = requeue(job)
        what = "it is requeued" if problem is None else f"and it cannot be requeued ({problem})"
        os.write(STDERR, f"SIGUSR1 came before the training of SLURM job {job}: {what}\n".encode())
