"""The losses of 50 steps of Lightning's Trainer on the device, against the CPU."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import torch
from every_model import TRAINED, batch_of, make_task
from lightning.pytorch import Callback, Trainer

from gpu_check.context import Context
from gpu_check.stepping import clean, copied, loader_of, tiny_encoders, trainer_of, without_dropout
from robusttune.tasks import RobustTask
from robusttune.types import Batch

STEPS, BATCHES = 50, 5
SMALL = ("MoLT with momentum", "MMRL")
# Rounding errors grow from step to step, and an AdamW step magnifies those of small gradients. On a CPU, weights that
# were changed by 1e-6 of their values gave losses that differed by at most 0.3 % within 50 steps (`--device cpu` checks
# that, in place of another device). Each rounding of a mixed precision acts in the same way, 2^-11 or 2^-8 of a value,
# so the mean difference is compared, not that of each step.
TOLERANCES = {"32-true": 0.02, "bf16-mixed": 0.1, "16-mixed": 0.1}
PERTURBATION = 1e-6


class StepLosses(Callback):
    """The loss of each training step, which is read when all steps are done."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.tensors.append(outputs["loss"].detach())

    @property
    def values(self) -> list[float]:
        """Return the losses of all steps."""
        return torch.stack(self.tensors).float().tolist()


def run(context: Context) -> None:
    """Compare every model in each precision."""
    torch.backends.cudnn.allow_tf32 = False
    folders = tiny_encoders(context)
    for model in SMALL if context.small else TRAINED:
        torch.manual_seed(0)
        task = without_dropout(make_task(model, *folders))
        batches = [clean(batch_of(task, cached=True)) for _ in range(BATCHES)]
        expected: list[float] = []
        with context.case(f"{model}, on the CPU"):
            expected = losses_of(trainer_of(context, accelerator="cpu"), copied(task, "cpu"), batches)
        for precision in TOLERANCES:
            name = f"{model}, {precision}"
            if not expected or (precision == "16-mixed" and context.needs_gpu(name)):
                continue
            with context.case(name):
                trained = copied(task, "cpu")
                if not context.on_gpu and precision == "32-true":
                    perturb(trained)
                compare(context, name, losses_of(trainer_of(context, precision=precision), trained, batches), expected)


def losses_of(trainer: Trainer, task: RobustTask, batches: list[Batch]) -> list[float]:
    """Train for `STEPS` steps and return their losses."""
    losses = StepLosses()
    trainer.callbacks.append(losses)  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_loop.max_steps = STEPS
    trainer.fit_loop.max_epochs = STEPS // BATCHES
    trainer.fit(task, loader_of(batches, pin_memory=torch.cuda.is_available()))
    return losses.values


def compare(context: Context, name: str, found: list[float], expected: list[float]) -> None:
    """Record the differences of losses, relative to the mean loss on the CPU."""
    scale, tolerance = fmean(map(abs, expected)), TOLERANCES[name.split(", ")[-1]]
    off = [abs(a - b) / scale for a, b in zip(found, expected, strict=True)]
    # `not >` would let NaN pass.
    passed = len(found) == STEPS and fmean(off) <= tolerance and fmean(found[-BATCHES:]) < fmean(found[:BATCHES])
    note = f"mean difference at most {tolerance}, and the last losses are below the first"
    values = {"mean_difference": fmean(off), "largest_difference": max(off)}
    context.add(name, passed, note, **values, first=fmean(found[:BATCHES]), last=fmean(found[-BATCHES:]))


@torch.no_grad()
def perturb(task: RobustTask) -> None:
    """Change all trained weights by rounding errors, in place of a device whose sums have another order."""
    for weights in task.parameters():
        if weights.requires_grad:
            weights.mul_(1 + PERTURBATION * torch.randn_like(weights))
