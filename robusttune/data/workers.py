"""Loader workers: how many there are, how far ahead they load, and how batches come from them.

Workers hand batches over in shared memory, which is small in containers: 64 MB in Docker. Where it is full, torch drops
a batch and the training would wait for it for ever. So its size is compared with that of the batches before, and
workers put batches there themselves, where an error ends the run.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from rich.filesize import decimal
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from robusttune.errors import RobustTuneError
from robusttune.interruption import waiting
from robusttune.ranks import rank

log = logging.getLogger(__name__)
B = TypeVar("B")

SHARED_MEMORY = Path("/dev/shm")
A_CORE = 4  # workers that one core can be of use to, where they wait for a slow disk
IN_USE = 2  # batches in shared memory besides those that are loaded ahead


class Workers(NamedTuple):
    """Loader workers of one device.

    Attributes:
        number: Number of processes; 0 loads in the process that trains.
        prefetch: Number of batches that each loads ahead.
    """

    number: int
    prefetch: int

    def bytes(self, batch: int) -> int:
        """Return the shared memory that batches of so many bytes take."""
        return (self.number * self.prefetch + IN_USE) * batch if self.number else 0


def limited_by_cores(number: int, cores: int, say: bool) -> int:
    """Return the number of workers, at most so many a core; more of them only take memory, and time to start.

    Args:
        number: Number that was asked for.
        cores: Number of cores of a device.
        say: Whether to log it if there are fewer.
    """
    most = A_CORE * cores
    if number > most and say:
        _say(f"data.workers is {number}, and {most} are started, {A_CORE} for each of {cores} cores: more have no use")
    return min(number, most)


def free_shared_memory() -> int | None:
    """Return the free bytes of shared memory; None where it is not a file system."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def limited_by_memory(workers: Workers, batch: int, shares: int, required: bool, what: str) -> Workers:
    """Return workers of which the batches fit into shared memory: they load fewer ahead, or there are fewer of them.

    Args:
        workers: As many as there would be otherwise.
        batch: Size of a batch, in bytes.
        shares: Number of loaders of this machine that are used at the same time.
        required: Whether the number of workers is the user's choice.
        what: Name of what is loaded.

    Raises:
        RobustTuneError: not one batch for each worker fits, and their number is the user's choice.
    """
    free = free_shared_memory()
    if free is None or workers.bytes(batch) <= free // shares:
        return workers
    fitting = max(0, free // shares // max(1, batch) - IN_USE)
    found = Workers(workers.number, fitting // workers.number)
    has = f"{SHARED_MEMORY} has {decimal(free)} free, and a batch of {what} takes {decimal(batch)}"
    remedy = "give it more (docker run --shm-size 8g)"
    if found.prefetch == 0 and required:
        raise RobustTuneError(
            f"{has}, of which {workers.number} workers and the training need {workers.number + IN_USE} for each of "
            f"{shares} loaders: {remedy}, or set data.workers to 0 or data.batch_size to less"
        )
    if found.prefetch == 0:
        found = Workers(fitting, 1)
    _say(
        f"{has}: it is loaded by {found.number} workers, not {workers.number}, and {found.prefetch} batches ahead, "
        f"not {workers.prefetch}; to have all of them, {remedy}"
    )
    return found


def share(values: Any) -> Any:
    """Move a batch that a worker has loaded into shared memory; raises a RuntimeError where that is full.

    Args:
        values: Tensor, or something with a ``map`` over its tensors.
    """
    if get_worker_info() is None:
        return values
    return _share(values) if isinstance(values, Tensor) else values.map(_share)


def _share(tensor: Tensor) -> Tensor:
    return tensor.share_memory_()  # type: ignore[no-untyped-call, no-any-return]


class Shared(Generic[B]):
    """A collate function of which the batches are in shared memory.

    Args:
        collate: Makes a batch of samples.
    """

    def __init__(self, collate: Callable[[Any], B]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> B:
        batch: B = share(self.collate(samples))
        return batch


class WatchedLoader(DataLoader[Any]):
    """A loader that says when it waits for a worker, so that a signal can end a wait that has no end."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            with waiting() if self.num_workers > 0 else nullcontext():
                batch = _next(batches)
            if batch is None:
                return
            yield batch


def _next(batches: Iterator[Any]) -> Any:
    """Return the next batch, or None at the end.

    Raises:
        RuntimeError: a worker has ended; also where only the way shows by which its batch was to come.
    """
    try:
        return next(batches, None)
    except (ConnectionError, EOFError) as error:
        if str(error).startswith("Caught "):  # an error of the data, in a worker that goes on
            raise
        raise RuntimeError("DataLoader worker (pid unknown) has closed its connection") from error


def _say(sentence: str) -> None:
    if rank() == 0:
        log.warning(sentence)
