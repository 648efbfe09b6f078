"""Loader workers: their number, their prefetching, and the transfer of batches to the main process.

Workers transfer batches through shared memory, which is small in containers: 64 MB in Docker. If it is full, torch
drops a batch, and training waits for it forever. Therefore its size is compared with the size of the batches before a
run, and workers move batches into it themselves, so that an error ends the run.
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
A_CORE = 4  # maximum number of workers per core; more than one helps if they wait for a slow disk
IN_USE = 2  # number of batches in shared memory in addition to the prefetched ones


class Workers(NamedTuple):
    """The loader workers of one device.

    Attributes:
        number: Number of processes; 0 loads batches in the training process.
        prefetch: Number of batches that each process loads ahead.

    Example:
        >>> Workers(number=4, prefetch=2).bytes(1_000)
        10000
    """

    number: int
    prefetch: int

    def bytes(self, batch: int) -> int:
        """Return the number of bytes of shared memory that the workers need.

        Args:
            batch: Size of a batch, in bytes.
        """
        return (self.number * self.prefetch + IN_USE) * batch if self.number else 0


def limited_by_cores(number: int, cores: int, say: bool) -> int:
    """Return the number of workers, limited to `A_CORE` per core: more of them only cost memory and time to start.

    Args:
        number: Requested number of workers.
        cores: Number of cores per device.
        say: Whether to log a warning if the number is reduced.

    Example:
        >>> limited_by_cores(64, cores=2, say=False)
        8
    """
    limit = A_CORE * cores
    if number > limit and say:
        _warn_on_rank_zero(
            f"data.loader.workers is {number}, and {limit} are started, {A_CORE} for each of {cores} cores: more have "
            "no use"
        )
    return min(number, limit)


def free_shared_memory() -> int | None:
    """Return the number of free bytes of shared memory, or None if the system has no such file system."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def limited_by_memory(workers: Workers, batch: int, shares: int, required: bool, what: str) -> Workers:
    """Return workers with batches that fit into shared memory, with less prefetching or fewer processes if necessary.

    Args:
        workers: Workers to limit.
        batch: Size of a batch, in bytes.
        shares: Number of loaders on this machine that run at the same time.
        required: Whether the user has set the number of workers, so that it must not be reduced.
        what: Contents of a batch, for the message, such as ``64 images``.

    Raises:
        RobustTuneError: Not even one batch per worker fits, and the user has set the number of workers.
    """
    free = free_shared_memory()
    if free is None or workers.bytes(batch) <= free // shares:
        return workers
    batches = max(0, free // shares // max(1, batch) - IN_USE)
    limited = Workers(workers.number, batches // workers.number)
    has = f"{SHARED_MEMORY} has {decimal(free)} free, and a batch of {what} takes {decimal(batch)}"
    remedy = "give it more (docker run --shm-size 8g)"
    if limited.prefetch == 0 and required:
        raise RobustTuneError(
            f"{has}, of which {workers.number} workers and the training need {workers.number + IN_USE} for each of "
            f"{shares} loaders: {remedy}, or set data.loader.workers to 0 or data.batch_size to less"
        )
    if limited.prefetch == 0:
        limited = Workers(batches, 1)
    _warn_on_rank_zero(
        f"{has}: it is loaded by {limited.number} workers, not {workers.number}, and {limited.prefetch} batches ahead, "
        f"not {workers.prefetch}; to have all of them, {remedy}"
    )
    return limited


def share(values: Any) -> Any:
    """Move a batch into shared memory if this process is a loader worker.

    Args:
        values: Tensor, or an object with a method ``map`` that applies a function to its tensors.

    Returns:
        Batch in shared memory; in the main process the unchanged batch.

    Raises:
        RuntimeError: The shared memory is full.
    """
    if get_worker_info() is None:
        return values
    return _share(values) if isinstance(values, Tensor) else values.map(_share)


def _share(tensor: Tensor) -> Tensor:
    """Move a tensor into shared memory."""
    return tensor.share_memory_()  # type: ignore[no-untyped-call, no-any-return]


class Shared(Generic[B]):
    """A collate function that puts its batches into shared memory.

    Args:
        collate: Function from samples to a batch.

    Example:
        >>> Shared(sum)([1, 2, 3])
        6
    """

    def __init__(self, collate: Callable[[Any], B]) -> None:
        self.collate = collate

    def __call__(self, samples: Any) -> B:
        batch: B = share(self.collate(samples))
        return batch


class WatchedLoader(DataLoader[Any]):
    """A loader that reports while it waits for a worker, so that a signal can interrupt an endless wait."""

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
        RuntimeError: A worker has ended. An error of the closed connection to the worker is converted to it.
    """
    try:
        return next(batches, None)
    except (ConnectionError, EOFError) as error:
        if str(error).startswith("Caught "):  # the data caused this error, and the worker still runs
            raise
        raise RuntimeError("DataLoader worker (pid unknown) has closed its connection") from error


def _warn_on_rank_zero(sentence: str) -> None:
    """Log a warning on rank 0 only."""
    if rank() == 0:
        log.warning(sentence)
