"""Translation of errors from loader workers that have died."""

from __future__ import annotations

import re

from robusttune.errors import RobustTuneError
from robusttune.interruption import BATCH_TIMEOUT, gave_up

FULL = ("unable to allocate shared memory", "out of shared memory")
ENDED = ("DataLoader worker (pid", "Pin memory thread exited")


class DeadWorkerError(RobustTuneError):
    """The error that a loader worker of this process has died. Other processes of the run do not raise it."""


def worker_error(error: Exception) -> DeadWorkerError | None:
    """Translate an error about a dead loader worker, or full shared memory; return None for other errors.

    Example:
        >>> worker_error(ValueError("another error")) is None
        True
    """
    message, signal = str(error), gave_up()
    if not isinstance(error, RuntimeError):
        return None
    if any(words in message for words in FULL):
        return DeadWorkerError(
            "/dev/shm is full, the memory through which loader workers pass batches: enlarge it "
            "(docker run --shm-size 8g), or set data.loader.workers to 0 or data.batch_size to less"
        )
    if not message.startswith(ENDED):
        return None
    if signal is not None:
        return DeadWorkerError(
            f"{signal.name} has ended the run, whose loader workers had delivered no batch for {BATCH_TIMEOUT} s: "
            "continue it with --resume auto, and check the disk that images are read from"
        )
    killed = re.search(r"killed by signal: (\w[\w ]*)", message)
    how = f" (killed by signal: {killed[1]})" if killed else ""
    return DeadWorkerError(
        f"a loader worker has ended unexpectedly{how}, usually because memory ran out: set data.loader.workers "
        "or data.loader.prefetch to less; continue a fit with --resume auto"
    )
