"""What a network keeps for its backward pass; torch.compile that takes less long."""

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

# What is traced runs as it is, or, which takes long, as code that is generated.
BACKENDS = ["eager", pytest.param("inductor", marks=pytest.mark.slow)]
LONG = ["eager", pytest.param("inductor", marks=pytest.mark.compiler)]  # of larger graphs: minutes each


@contextmanager
def compiling_with(backend: str) -> Iterator[None]:
    """In it nothing is compiled yet, and a graph that breaks is an error."""
    compile_ = torch.compile

    def compiled(part: Callable[..., Any], dynamic: bool, options: dict[str, Any]) -> Callable[..., Any]:
        how: dict[str, Any] = {"options": options} if backend == "inductor" else {"backend": backend}
        return compile_(part, dynamic=dynamic, fullgraph=True, **how)

    torch._dynamo.reset()
    counters.clear()
    with patch.object(torch, "compile", compiled):
        yield
    torch._dynamo.reset()


class Watched(Runner):
    """Notes what goes into parts: checkpointing keeps it where autograd does not tell."""

    def __init__(self, runner: Runner) -> None:
        self.__dict__ = {**vars(runner)}
        self.given: list[Any] = []

    def __call__(self, part: Callable[..., Any], *given: Any) -> Any:
        self.given += [part, *given]
        return super().__call__(part, *given)


def bytes_kept(network: Any, loss: Callable[[], Tensor]) -> int:
    """Bytes that wait for the backward pass, each storage once, without weights."""
    saved: list[Tensor] = []

    def save(tensor: Tensor) -> Tensor:
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
    return sum(size for place, size in storages.items() if place not in weights)


def tensors(values: Any) -> Iterator[Tensor]:
    """All that are in nested tuples, lists and dataclasses."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from tensors(value)
    elif hasattr(values, "__dataclass_fields__"):
        yield from tensors([*vars(values).values()])
