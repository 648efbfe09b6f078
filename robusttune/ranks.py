"""What the processes of a distributed run tell each other; with one process nothing travels."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from robusttune.errors import RobustTuneError

T = TypeVar("T")
R = TypeVar("R")


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _distributed() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _distributed() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks, with gradient; every rank must take part."""
    if world_size() == 1:
        return tensor
    summed: Tensor = _AllReduceSum.apply(tensor)
    return summed


def any_over_ranks(flag: bool) -> bool:
    """Whether it is True on any rank; every rank must take part. No device is waited for."""
    return bool(max_over_ranks(int(flag)))


def max_over_ranks(number: int) -> int:
    """The greatest of all ranks' numbers; every rank must take part. No device is waited for."""
    if world_size() == 1:
        return number
    numbers = torch.tensor(number)
    dist.all_reduce(numbers, dist.ReduceOp.MAX, group=_cpu_group(dist.group.WORLD))
    return int(numbers)


def on_rank_zero(value: T, fn: Callable[[list[T]], R]) -> R:
    """``fn`` of every rank's value, computed on rank 0 and given to all; every rank must take part.

    Raises:
        Exception: whatever ``fn`` raises, on rank 0; on the others it is a `RobustTuneError` that is told elsewhere.
    """
    if world_size() == 1:
        return fn([value])
    group = _cpu_group(dist.group.WORLD)
    values: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, values, group=group)
    told: list[Any] = [None, None]  # the result, or the problem
    raised: Exception | None = None
    if values is not None:
        try:
            told[0] = fn(values)
        except Exception as error:  # the other ranks must not wait for a result
            raised, told[1] = error, str(error)
    dist.broadcast_object_list(told, group=group)
    result, problem = told
    if problem is not None:
        raise raised or RobustTuneError(problem, reported_elsewhere=True)
    return result  # type: ignore[no-any-return]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_of_each(processes: int) -> int:
    """Cores for each of the processes that share this machine; of a task of SLURM those that it was given."""
    given = os.environ.get("SLURM_CPUS_PER_TASK") if "SLURM_PROCID" in os.environ else None
    return max(1, cores() // processes) if given is None else max(1, min(cores(), int(given)))


def leave() -> None:
    """End this process's part: a thread of gloo that outlives the interpreter now and then aborts the process."""
    if not (_distributed() or _cpu_group.cache_info().currsize):
        return
    _cpu_group.cache_clear()
    gc.collect()  # of what still holds the group; where there was none, it would only take time
    if _distributed():
        dist.destroy_process_group()


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


@cache
def _cpu_group(world: Any) -> Any:
    """All ranks over gloo, made when first used: NCCL cannot send what is not on a GPU."""
    return world if dist.get_backend(world) == "gloo" else dist.new_group(backend="gloo")


class _AllReduceSum(torch.autograd.Function):
    """A gradient that arrives at the sum belongs to every rank's summand."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed
