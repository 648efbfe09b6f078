"""Compiled and recomputed steps against plain ones, and steps as CUDA graphs.

A CUDA graph can only hold a step in which the host waits for nothing, so the correlation loss is left out of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from benchmarks.bench_compile import MoLTStep
from benchmarks.bench_mmrl import Step, write_clip
from torch import Tensor, nn
from torch.nn import functional

from gpu_check.context import Context
from gpu_check.stepping import distance
from robusttune.models.runner import Runner

# Compiled code sums in another order and fuses multiplications with additions; MMRL runs in float16 on a GPU.
TOLERANCES = {"MoLT": 1e-3, "MMRL": 0.05}
WAYS = {"plain": (False, False), "recomputed": (False, True), "compiled": (True, False), "both": (True, True)}


def run(context: Context) -> None:
    """Compare all ways of both models, then capture both as graphs."""
    torch.backends.cudnn.allow_tf32 = False
    write_clip(context.folder, width=8 if context.small else 64)
    molt = MoLTStep(2 if context.small else 4, 4 if context.small else 256, context.device)
    mmrl = Step(context.folder, 5 if context.small else 101, 2 if context.small else 32, context.device)
    steps: dict[str, tuple[Any, Callable[[], Tensor]]] = {
        "MoLT": (molt.network, molt),
        "MMRL": (mmrl.network, mmrl.fast),
    }
    for model, (network, loss) in steps.items():
        reference = gradients(network, loss)
        for way, settings in WAYS.items():
            name = f"{model}, {way}"
            if settings[0] and context.needs_gpu(name):  # On a CPU, tests of the mark `compiler` run it.
                continue
            with context.case(name):
                network.run = Runner(*settings)
                compare(context, name, network, loss, reference)
        network.run = Runner()
    for module in molt.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0

    def classify() -> Tensor:
        image, text = molt.modalities
        return functional.cross_entropy(molt.network(image, text, *molt.present).logits, molt.label)

    for model, (network, loss) in {"MoLT": (molt.network, classify), "MMRL": (mmrl.network, mmrl.fast)}.items():
        name = f"{model}, CUDA graph"
        if not context.needs_gpu(name):
            with context.case(name):
                capture(context, name, network, loss)


def gradients(network: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    """Return the loss and all gradients as one vector, with seeded random numbers."""
    network.zero_grad()
    torch.manual_seed(0)
    value = loss()
    value.backward()
    found = [parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None]
    return torch.cat([value.detach().reshape(1), *found]).float().cpu()


def compare(context: Context, name: str, network: nn.Module, loss: Callable[[], Tensor], reference: Tensor) -> None:
    """Compare the gradients with those of the plain way, and time the first step and later ones."""
    torch._dynamo.reset()
    first = context.seconds(lambda: gradients(network, loss))
    off = distance(gradients(network, loss), reference)

    def step() -> None:
        network.zero_grad()
        loss().backward()

    values = {"step_ms": context.medians(2 if context.small else 10, step=step)["step"] * 1e3, "first_step_s": first}
    if (peak := context.peak(step)) is not None:
        values["megabytes"] = peak / 1e6
    tolerance = TOLERANCES[name.split(", ")[0]]
    context.add(name, off <= tolerance, f"at most {tolerance}", **values, difference=off)


def capture(context: Context, name: str, network: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Capture a step as a CUDA graph, and compare its gradients and its duration with those of a plain step."""
    reference = gradients(network, loss)

    def step() -> Tensor:
        network.zero_grad()
        value = loss()
        value.backward()
        return value

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    plain = context.medians(10, step=step)["step"]
    network.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss()
        value.backward()
    replayed = context.medians(10, replay=graph.replay)["replay"]
    found = [parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None]
    off = distance(torch.cat([value.detach().reshape(1), *found]).float().cpu(), reference)
    tolerance = TOLERANCES[name.split(", ")[0]]
    values = {"plain_ms": plain * 1e3, "graph_ms": replayed * 1e3, "times_as_fast": plain / replayed}
    context.add(name, off <= tolerance, f"at most {tolerance}", **values, difference=off)
