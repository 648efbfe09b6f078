"""MMRL on a ViT-B/16 CLIP against the plain computation of `plain_mmrl.py`: equal, and how fast in how much memory."""

from __future__ import annotations

import torch
from benchmarks.bench_mmrl import Step, write_clip

from gpu_check.context import Context

CLASSES, BATCHES = (51, 500, 1000), (4, 32)
# Differences of the gradients relative to their norm. In float16 on a GPU both ways round about 100 times, in another
# order; `bench_mmrl.py` has the same tolerances.
TOLERANCES = {"cuda": 0.05, "cpu": 1e-4}


def run(context: Context) -> None:
    """Compare both ways for each number of classes and each batch size."""
    torch.backends.cudnn.allow_tf32 = False
    write_clip(context.folder, width=8 if context.small else 64)
    for classes in (5,) if context.small else CLASSES:
        for batch in (2,) if context.small else BATCHES:
            name = f"{classes} classes, batch {batch}"
            with context.case(name):
                compare(context, name, Step(context.folder, classes, batch, context.device))


def compare(context: Context, name: str, step: Step) -> None:
    """Compare losses and gradients, durations and peaks of memory; the plain way may need more memory than there is."""
    ways = {"plain": step.plain, "ours": step.fast}
    try:
        off = step.differences()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        off, ways = None, {"ours": step.fast}

    def backward(way: str) -> None:
        step.network.zero_grad()
        ways[way]().backward()

    calls = {way: lambda way=way: backward(way) for way in ways}
    times = context.medians(2 if context.small else 7, **calls)
    values = {f"{way}_ms": seconds * 1e3 for way, seconds in times.items()}
    values |= {f"{way}_megabytes": peak / 1e6 for way, call in calls.items() if (peak := context.peak(call))}
    if off is None:
        context.add(name, None, "the plain computation does not fit into the memory", **values)
        return
    tolerance = TOLERANCES[context.device]
    values |= {"times_as_fast": times["plain"] / times["ours"], "difference_of_gradients": off[1]}
    passed = off[0] <= tolerance and off[1] <= tolerance
    context.add(name, passed, f"at most {tolerance}", **values, difference_of_losses=off[0])
