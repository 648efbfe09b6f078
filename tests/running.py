"""Helpers to measure the memory that a network saves for its backward pass, and to speed up torch.compile in tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from robusttune.models.runner import Runner

# The eager backend runs the traced graph as it is; inductor generates code for it, which takes long.
BACKENDS = ["eager", pytest.param("inductor", marks=pytest.mark.slow)]
LONG = ["eager", pytest.param("inductor", marks=pytest.mark.compiler)]  # for larger graphs, which take minutes each


@contextmanager
def compiling_with(backend: str) -> Iterator[None]:
    """Make torch.compile use a backend inside the context, with an empty cache and an error for graph breaks."""
    compile_ = torch.compile

    def compiled(part: Callable[..., Any], dynamic: bool, options: dict[str, Any]) -> Callable[..., Any]:
        """Compile a part of the network with the chosen backend."""
        how: dict[str, Any] = {"options": options} if backend == "inductor" else {"backend": backend}
        return compile_(part, dynamic=dynamic, fullgraph=True, **how)

    torch._dynamo.reset()
    counters.clear()
    with patch.object(torch, "compile", compiled):
        yield
    torch._dynamo.reset()


class Watched(Runner):
    """A runner that records the inputs of the parts: activation checkpointing saves them outside autograd's hooks."""

    def __init__(self, runner: Runner) -> None:
        self.__dict__ = {**vars(runner)}
        self.given: list[Any] = []

    def __call__(self, part: Callable[..., Any], *given: Any) -> Any:
        self.given += [part, *given]
        return super().__call__(part, *given)


def bytes_kept(network: Any, loss: Callable[[], Tensor]) -> int:
    """Return the bytes that a forward pass saves for its backward pass.

    Each storage counts once; weights do not count.

    Args:
        network: Network with a `Runner` in its attribute ``run``.
        loss: Function that runs the forward pass and returns the loss.
    """
    saved: list[Tensor] = []

    def save(tensor: Tensor) -> Tensor:
        """Record a tensor that autograd saves."""
        saved.append(tensor)
        return tensor

    runner, watched = network.run, Watched(network.run)
    network.run = watched
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        value = loss()
    network.run = runner
    kept = saved + (list(tensors(watched.given)) if runner.checkpoint_activations else [])
    modules = [network, *(given for given in watched.given if isinstance(given, nn.Module))]
    weights = {weight.untyped_storage().data_ptr() for module in modules for weight in module.parameters()}
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    del value
    return sum(size for pointer, size in storages.items() if pointer not in weights)


def tensors(values: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested tuples, lists and dataclasses."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from tensors(value)
    elif hasattr(values, "__dataclass_fields__"):
        yield from tensors([*vars(values).values()])
