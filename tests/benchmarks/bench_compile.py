"""What `model.compile` and `model.checkpoint_activations` cost and save: MoLT on cached features, MMRL on ViT-B/16.

`python tests/benchmarks/bench_compile.py [molt mmrl] [--device cuda] [--batch 64 256] [--layers 4] [--rounds 9]`

A step is forward, loss and backward. Each way's first step is timed alone (compilation, and whatever else happens
once; torch keeps what it has compiled on disk, so the folder is empty at first, and ``both`` finds in it what
``compile`` left), then all ways take turns.
Kept is what the network holds for the backward pass: what autograd saves, and what goes into parts that are computed
again. Memory is the most that a step takes beyond what is resident before it, encoders included.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from benchmarks.bench_mmrl import Step, resident, write_clip
from benchmarks.paired import FOLDER
from rich.console import Console
from rich.table import Table
from running import bytes_kept
from torch import Tensor, nn
from torch.nn import functional

from robusttune.commands.quiet import quiet
from robusttune.models import CorrelationLoss, MoLT
from robusttune.models.runner import Runner
from robusttune.types import Encoded, Facts, Widths

WAYS = {"eager": (False, False), "compile": (True, False), "checkpoint": (False, True), "both": (True, True)}
CLASSES, WIDTH, IMAGE_TOKENS, TEXT_TOKENS = 101, 768, 50, 24  # ViT-B/16 on a grid of 7, titles


class MoLTStep:
    """MoLT and its losses on features of ViT-B/16 and BERT-base."""

    def __init__(self, layers: int, batch: int, device: str) -> None:
        torch.manual_seed(0)
        facts = Facts([f"{n}" for n in range(CLASSES)], [1 / CLASSES] * CLASSES, False)
        widths = Widths((WIDTH,) * layers, WIDTH)
        self.network = MoLT().build(widths, widths, facts).to(device)
        self.correlation = CorrelationLoss(*self.network.view_shape).to(device)
        self.label = torch.randint(CLASSES, (batch,), device=device)
        present = torch.rand(2, batch, device=device) > 0.3
        self.present = present[0], present[1] | ~present[0]
        lengths = torch.randint(2, TEXT_TOKENS + 1, (batch, 1), device=device)
        masks = (
            torch.ones(batch, IMAGE_TOKENS, dtype=torch.bool, device=device),
            torch.arange(TEXT_TOKENS, device=device) < lengths,
        )
        self.modalities = [
            Encoded(
                torch.randn(batch, WIDTH, device=device),
                [torch.randn(*mask.shape, WIDTH, device=device) for _ in range(layers)],
                [mask.to(device)] * layers,
            )
            for mask in masks
        ]

    def __call__(self) -> Tensor:
        image, text = self.modalities
        fused = self.network(image, text, *self.present)
        correlation = self.correlation(fused.image_views, fused.text_views, self.present[0] & self.present[1])
        return functional.cross_entropy(fused.logits, self.label) + 0.1 * correlation.float()


def seconds(network: nn.Module, loss: Callable[[], Tensor], device: str) -> float:
    network.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    start = perf_counter()
    loss().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start


def megabytes(network: nn.Module, loss: Callable[[], Tensor], device: str) -> float:
    """The most that a step takes."""
    network.zero_grad()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss().backward()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the greatest resident size begins anew
    resident_before = resident("VmRSS")
    loss().backward()
    return resident("VmHWM") - resident_before


def bench(name: str, network: Any, loss: Callable[[], Tensor], device: str, rounds: int) -> None:
    """All ways by turns; a table, and the numbers in ``runs/benchmarks/<name>.json``."""
    runners = {way: Runner(*settings) for way, settings in WAYS.items()}
    found: dict[str, dict[str, Any]] = {}
    for way, network.run in runners.items():
        torch._dynamo.reset()
        found[way] = {"first step (s)": seconds(network, loss, device), "steps (s)": []}
        runners[way] = network.run = Runner(*WAYS[way])
        found[way]["kept (MB)"] = bytes_kept(network, loss) / 1e6
        found[way]["memory (MB)"] = min(megabytes(network, loss, device) for _ in range(3))
    torch._dynamo.reset()
    for turn in range(rounds + 1):
        for way, network.run in runners.items():
            took = seconds(network, loss, device)
            if turn:
                found[way]["steps (s)"].append(took)
    table = Table("", "step (s)", "least", "greatest", "first step (s)", "kept (MB)", "memory (MB)")
    table.title, table.title_justify = f"{name}, {rounds} rounds", "left"
    for way, numbers in found.items():
        steps = numbers["steps (s)"]
        columns = [median(steps), min(steps), max(steps)]
        columns += [numbers[column] for column in ("first step (s)", "kept (MB)", "memory (MB)")]
        table.add_row(way, *(f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in columns))
    Console().print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")


@quiet()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["molt", "mmrl"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256], help="of MoLT")
    parser.add_argument("--layers", type=int, default=4, help="of MoLT")
    parser.add_argument("--classes", type=int, default=101, help="of MMRL")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/compiled"
        if "molt" in given.models:
            for batch in given.batch:
                step = MoLTStep(given.layers, batch, given.device)
                name = f"MoLT step, {given.layers} layers, batch {batch}, {given.device}"
                bench(name, step.network, step, given.device, given.rounds)
        if "mmrl" in given.models:
            write_clip(Path(folder))
            mmrl = Step(Path(folder), given.classes, 4, given.device)
            name = f"MMRL step, batch 4, {given.classes} classes, {given.device}"
            bench(name, mmrl.network, mmrl.fast, given.device, given.rounds)


if __name__ == "__main__":
    main()
