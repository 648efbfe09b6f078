"""Bytes of what a step of training keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from robusttune.types import Batch


class Saved:
    """What autograd keeps of a forward pass until the backward pass: each storage once, without weights."""

    def __init__(self, weights: set[int]) -> None:
        self.weights = weights
        self.storages: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        """Of all storages."""
        return sum(self.storages.values())

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor


@contextmanager
def saved_activations(module: nn.Module) -> Iterator[Saved]:
    """Watch a forward pass; everything that is saved has to live until the end.

    Args:
        module: whose parameters and buffers do not count.
    """
    tensors = chain(module.parameters(), module.buffers())
    saved = Saved({tensor.untyped_storage().data_ptr() for tensor in tensors})
    with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor):
        yield saved


def weight_bytes(module: nn.Module) -> int:
    """Of parameters and buffers."""
    return _bytes(chain(module.parameters(), module.buffers()))


def gradient_bytes(module: nn.Module) -> int:
    """Of the gradients that there are."""
    return _bytes(weight.grad for weight in module.parameters() if weight.grad is not None)


def optimizer_bytes(optimizer: Optimizer) -> int:
    """Of an optimiser's state."""
    values = (value for state in optimizer.state.values() for value in state.values())
    return _bytes(value for value in values if isinstance(value, Tensor))


def batch_bytes(batch: Batch) -> int:
    """Of a batch's tensors."""
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    batch.map(note)
    return _bytes(tensors)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
