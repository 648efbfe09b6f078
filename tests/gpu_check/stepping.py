"""Training steps and evaluations of a task, alone or through Lightning's Trainer."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from dishes import write_text_encoder
from fakes import write_clip
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gpu_check.context import Context
from robusttune.tasks import RobustTask
from robusttune.types import Batch, Variants

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
SCALE = 1024.0  # of a loss in float16, as a gradient scaler has it, so that small gradients do not become 0


def tiny_encoders(context: Context) -> tuple[Path, Path]:
    """Write a tiny BERT and a tiny CLIP with random weights, and return their folders."""
    text, clip = context.folder / "bert", context.folder / "clip"
    write_text_encoder(text, width=32, layers=2)
    write_clip(clip)
    return text, clip


def without_dropout(task: RobustTask) -> RobustTask:
    """Turn dropout off, because each device draws random numbers of its own, and return the task."""
    for module in task.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "input_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return task


def without_trainer(task: RobustTask, device: str) -> RobustTask:
    """Return the task in training mode on a device, for steps without a Trainer, none of which is logged."""
    task.logs_this_step = lambda: False  # type: ignore[method-assign]
    return task.to(device).train()


def clean(batch: Batch) -> Batch:
    """Return the batch with its clean inputs alone, as in a training without noise."""
    return replace(
        batch, images=Variants(["clean"], batch.images["clean"]), texts=Variants(["clean"], batch.texts["clean"])
    )


def copied(task: RobustTask, device: str) -> RobustTask:
    """Return a copy of the task on a device, with the trainer of the original."""
    trainer, task._trainer = task._trainer, None
    other = copy.deepcopy(task).to(device)
    task._trainer = other._trainer = trainer
    return other


def step(task: RobustTask, batch: Batch, precision: str) -> tuple[Tensor, list[Tensor]]:
    """Take a training step without an optimiser.

    Args:
        task: Task in training mode.
        batch: Batch on the task's device.
        precision: Name of the precision, as Lightning has it.

    Returns:
        Loss, shape (), and the gradients of all trained weights, each flattened, float32 on the CPU. A weight without
        a gradient has zeros.
    """
    task.zero_grad()
    dtype, device = DTYPES[precision], task.device.type
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        losses = task.training_losses(batch, 1)
    scale = SCALE if dtype == torch.float16 else 1.0
    (losses.loss * scale).backward()
    trained = [weights for weights in task.parameters() if weights.requires_grad]
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad / scale for w in trained]
    return losses.loss.detach().float().cpu(), [gradient.flatten().float().cpu() for gradient in gradients]


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference relative to the norm of the expected values, infinite if any is not finite."""
    if not found.isfinite().all():
        return float("inf")
    found, expected = found.double().flatten(), expected.double().flatten()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


def trainer_of(context: Context, callbacks: Sequence[Callback] = (), **settings: Any) -> Trainer:
    """Return a quiet Trainer on the context's device."""
    defaults: dict[str, Any] = {"accelerator": context.accelerator, "devices": 1, "num_sanity_val_steps": 0} | QUIET
    return Trainer(**defaults | settings, callbacks=[*callbacks])


def loader_of(batches: Iterable[Batch], pin_memory: bool) -> DataLoader[Batch]:
    """Return a loader of ready batches."""
    return DataLoader([*batches], batch_size=None, pin_memory=pin_memory)  # type: ignore[arg-type]
