"""Sums over the processes of a distributed run; with one process they change nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over all ranks, with gradient; every rank must take part."""
    if world_size() == 1:
        return tensor
    summed: Tensor = _AllReduceSum.apply(tensor)
    return summed


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
