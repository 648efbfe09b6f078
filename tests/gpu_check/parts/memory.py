"""The estimate of `robusttune plan`: its peak memory against that of a fit, and its parts against the peak."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from gpu_check.context import Context
from gpu_check.scenes import data_of, task_of
from gpu_check.stepping import trainer_of
from robusttune.planning import TRAINER, Extent, estimate
from robusttune.planning.plan import Memory

STEPS = 6
CASES = (("MoLT", False), ("MoLT", True), ("MMRL", False))
# The caching allocator gives the same blocks to the same steps, so peaks differ only with the lengths of texts.
PEAK_TOLERANCE = 0.1


class Peak(Callback):
    """The peak of the allocated memory of the steps after the first two, as a plan measures it."""

    bytes = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 2 and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if torch.cuda.is_available():
            self.bytes = torch.cuda.max_memory_allocated()


def run(context: Context) -> None:
    """Plan both demos, and fit them."""
    for kind, cached in (("MMRL", True),) if context.small else CASES:
        name = f"{kind}, {'features' if cached else 'inputs'}"
        with context.case(name):
            compare(context, name, kind, cached)


def compare(context: Context, name: str, kind: str, cached: bool) -> None:
    """Compare a plan with a fit."""
    batch_size = 16 if context.small else 256
    cache = context.folder / f"cache-{kind}" if cached else None
    data = data_of(kind, 4 * batch_size, cache, batch_size, workers=0)
    trainer = Trainer(accelerator=context.accelerator, **TRAINER)
    plan = estimate(task_of(kind, data), data, trainer, Extent(max_epochs=1), steps=2 if context.small else STEPS)
    del trainer, data
    context.free()
    parts = bytes_of(plan.memory)
    values = {f"{part}_megabytes": number / 1e6 for part, number in parts.items()}
    least = sum(parts.values())
    if not context.on_gpu:
        context.add(name, least > 0 and plan.memory.peak is None, "the peak needs a GPU", **values)
        return
    with_peak = Peak()
    data = data_of(kind, 4 * batch_size, cache, batch_size, workers=0)
    trainer_of(context, [with_peak], max_epochs=2).fit(task_of(kind, data), datamodule=data)
    assert plan.memory.peak is not None
    off = abs(plan.memory.peak - with_peak.bytes) / with_peak.bytes
    # Weights and optimiser state are always there. Activations, gradients and the batch are there together only in the
    # middle of the backward pass, when some activations are freed and some gradients are not made yet.
    resident = parts["weights"] + parts["optimizer_state"]
    passed = off <= PEAK_TOLERANCE and resident <= plan.memory.peak
    values |= {"planned_peak_megabytes": plan.memory.peak / 1e6, "peak_megabytes": with_peak.bytes / 1e6}
    note = f"peaks differ by at most {PEAK_TOLERANCE:.0%}"
    context.add(name, passed, note, **values, difference=off, peak_over_sum_of_parts=with_peak.bytes / least)


def bytes_of(memory: Memory) -> dict[str, int]:
    """Return the estimated parts of the memory, in bytes."""
    return {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer_state": memory.optimizer_state,
        "activations": memory.activations,
        "batch": memory.batch,
    }
