"""Memory of a training step in bytes: weights, gradients, optimizer state, activations and inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from robusttune.types import Batch


class SavedActivations:
    """The activations that autograd saves in a forward pass for the backward pass.

    Each storage counts once, even if several saved tensors share it. Weights do not count.

    Args:
        weights: Data pointers of the storages that do not count.

    Attributes:
        storages: Size in bytes of each saved storage, by its data pointer.
    """

    def __init__(self, weights: set[int]) -> None:
        self.weights = weights
        self.storages: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        """Return the size of all saved storages in bytes."""
        return sum(self.storages.values())

    def add(self, tensor: Tensor) -> Tensor:
        """Record the storage of a saved tensor and return the tensor, as a pack hook of autograd must."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor


@contextmanager
def saved_activations(module: nn.Module) -> Iterator[SavedActivations]:
    """Record the activations that autograd saves inside the context.

    The saved tensors, and so the loss, must stay alive until the context ends. Otherwise a new storage could get the
    address of a freed one, and the two would count as one.

    Args:
        module: Model that runs inside; its parameters and buffers are not counted.

    Example:
        >>> layer = nn.Linear(4, 2)
        >>> with saved_activations(layer) as saved:
        ...     loss = layer(torch.ones(3, 4)).sum()
        >>> saved.bytes
        48
    """
    tensors = chain(module.parameters(), module.buffers())
    saved = SavedActivations({tensor.untyped_storage().data_ptr() for tensor in tensors})
    with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor):
        yield saved


def weight_bytes(module: nn.Module) -> int:
    """Return the size of a module's parameters and buffers in bytes.

    Example:
        >>> weight_bytes(nn.Linear(4, 2))
        40
    """
    return _bytes(chain(module.parameters(), module.buffers()))


def gradient_bytes(module: nn.Module) -> int:
    """Return the size of a module's current gradients in bytes; parameters without a gradient count as 0."""
    return _bytes(weight.grad for weight in module.parameters() if weight.grad is not None)


def optimizer_bytes(optimizer: Optimizer) -> int:
    """Return the size of the tensors in an optimizer's state in bytes; it is 0 before the first step."""
    values = (value for state in optimizer.state.values() for value in state.values())
    return _bytes(value for value in values if isinstance(value, Tensor))


def batch_bytes(batch: Batch) -> int:
    """Return the size of all tensors in a batch in bytes."""
    tensors: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        """Append a tensor to the list and return it unchanged."""
        tensors.append(tensor)
        return tensor

    batch.map(collect)
    return _bytes(tensors)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
