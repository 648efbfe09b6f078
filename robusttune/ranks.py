"""Communication between the processes (ranks) of a distributed run. With one process, nothing is sent."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from robusttune.errors import RobustTuneError

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # those of Lightning, in its order
T = TypeVar("T")
R = TypeVar("R")
_is_alone = ContextVar("_is_alone", default=False)


def rank() -> int:
    """Return the rank of this process, from 0; 0 outside of a distributed run."""
    return dist.get_rank() if _distributed() else 0


def world_size() -> int:
    """Return the number of processes in the run; 1 outside of a distributed run."""
    return dist.get_world_size() if _distributed() else 1


def is_rank_zero() -> bool:
    """Return whether this is the process with rank 0, also before the processes are connected."""
    if _distributed():
        return rank() == 0
    return int(next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), 0)) == 0


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, differentiably. Every rank must call this.

    Args:
        tensor: Values of this rank, of the same shape and dtype on all ranks.
    """
    if not _is_sending():
        return tensor
    summed: Tensor = _AllReduceSum.apply(tensor)
    return summed


def any_over_ranks(flag: bool) -> bool:
    """Return whether the flag is True on any rank. Every rank must call this; it does not synchronise a device."""
    return bool(max_over_ranks(int(flag)))


def max_over_ranks(number: int) -> int:
    """Return the maximum over all ranks. Every rank must call this; it does not synchronise a device."""
    return int(highest_over_ranks(torch.tensor(number)))


def total_over_ranks(numbers: Tensor) -> Tensor:
    """Return the sum over all ranks of a tensor on the CPU. Every rank must call this.

    Args:
        numbers: Values of this rank, of the same shape and dtype on all ranks.
    """
    return _reduced(numbers, dist.ReduceOp.SUM)


def highest_over_ranks(numbers: Tensor) -> Tensor:
    """Return the maximum over all ranks of each value of a tensor on the CPU. Every rank must call this.

    Args:
        numbers: Values of this rank, of the same shape and dtype on all ranks.
    """
    return _reduced(numbers, dist.ReduceOp.MAX)


def gather(value: T) -> list[T]:
    """Return every rank's value, in the order of ranks. Every rank must call this.

    Args:
        value: Value of this rank, which must be picklable.
    """
    if not _is_sending():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_cpu_group(dist.group.WORLD))
    return values


@contextmanager
def alone() -> Iterator[None]:
    """Let the functions of this module that reduce or gather values use those of this process alone.

    The number of processes and the rank stay what they are.
    """
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


def on_rank_zero(value: T, fn: Callable[[list[T]], R]) -> R:
    """Gather every rank's value on rank 0, apply ``fn`` there, and broadcast its result. Every rank must call this.

    Args:
        value: Value of this rank, which must be picklable.
        fn: Function of the list of values in the order of ranks. It runs on rank 0 only, see `alone`.

    Returns:
        Result of ``fn``, the same on all ranks.

    Raises:
        Exception: The exception of ``fn``, on rank 0. The other ranks raise a `RobustTuneError` with the same message,
            marked as ``reported_elsewhere``.

    Example:
        >>> on_rank_zero(3, sum)  # one process
        3
    """
    if not _is_sending():
        return fn([value])
    group = _cpu_group(dist.group.WORLD)
    values: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, values, group=group)
    message: list[Any] = [None, None]  # the result and the error message
    raised: Exception | None = None
    if values is not None:
        try:
            with alone():
                message[0] = fn(values)
        except Exception as error:  # Broadcast it, because the other ranks would wait for a result forever.
            raised, message[1] = error, str(error)
    dist.broadcast_object_list(message, group=group)
    result, problem = message
    if problem is not None:
        raise raised or RobustTuneError(problem, reported_elsewhere=True)
    return result  # type: ignore[no-any-return]


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_of_each(processes: int) -> int:
    """Return the number of cores for each process of this machine, at least 1.

    Args:
        processes: Number of processes that share the machine. In a SLURM task with ``SLURM_CPUS_PER_TASK``, that number
            of cores is used instead of an equal share.
    """
    given = os.environ.get("SLURM_CPUS_PER_TASK") if "SLURM_PROCID" in os.environ else None
    return max(1, cores() // processes) if given is None else max(1, min(cores(), int(given)))


def leave() -> None:
    """Close the process groups. A gloo thread that outlives the interpreter sometimes aborts the process."""
    if not (_distributed() or _cpu_group.cache_info().currsize):
        return
    _cpu_group.cache_clear()
    gc.collect()  # Free the objects that still refer to the group. Without a group this would only cost time.
    if _distributed():
        dist.destroy_process_group()


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _is_sending() -> bool:
    """Return whether values are sent to other processes."""
    return world_size() > 1 and not _is_alone.get()


def _reduced(numbers: Tensor, operation: Any) -> Tensor:
    """Return a tensor that is reduced over all ranks with an operation; the argument is unchanged."""
    if not _is_sending():
        return numbers
    reduced = numbers.clone()
    dist.all_reduce(reduced, operation, group=_cpu_group(dist.group.WORLD))
    return reduced


@cache
def _cpu_group(world: Any) -> Any:
    """Return a gloo group of all ranks, created on first use. NCCL cannot send tensors that are not on a GPU."""
    return world if dist.get_backend(world) == "gloo" else dist.new_group(backend="gloo")


class _AllReduceSum(torch.autograd.Function):
    """A differentiable all-reduce. The gradient of every rank's summand is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Return the sum of ``tensor`` over all ranks."""
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the sum of ``gradient`` over all ranks."""
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed
