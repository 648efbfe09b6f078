"""The signals that end a run: noted from its first moment on, and acted on where nothing is lost.

A handler only takes a note, for one that saves, or that waits for other ranks, can lock up a distributed run: a rank
may be inside of a collective operation at that moment. `LastCheckpoint` reads the note at the ends of batches.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from types import FrameType

SAVE_AND_REQUEUE = signal.SIGUSR1
SAVE_AND_STOP = (signal.SIGTERM, signal.SIGINT)
AGAIN = b"\nThe run is saved at the end of a training step, and stops then; Ctrl-C once more stops it at once.\n"

STDERR = 2
GRACE = 20  # seconds

_noted: signal.Signals | None = None


def noted() -> signal.Signals | None:
    """The signal that has come to this process and was not yet acted on."""
    return _noted


def forget() -> None:
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
    """From now on SIGUSR1, SIGTERM and the first Ctrl-C wait until they are asked for."""
    for number in (SAVE_AND_REQUEUE, *SAVE_AND_STOP):
        signal.signal(number, _note)


def leave_to_main(_: int = 0) -> None:
    """In a loader's worker: signals that all processes of a run get are acted on by the main one.

    SIGTERM is also how workers are ended where a run breaks off; so they only wait until the main one has had time.
    """
    for number in (SAVE_AND_REQUEUE, signal.SIGINT):
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


def _note(number: int, _: FrameType | None) -> None:
    global _noted
    _noted = signal.Signals(number)
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
