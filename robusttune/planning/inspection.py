"""A callback that measures the operations and the memory of real training steps."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from robusttune.planning.flops import Flops, counted_flops
from robusttune.planning.memory import (
    SavedActivations,
    batch_bytes,
    gradient_bytes,
    optimizer_bytes,
    saved_activations,
    weight_bytes,
)

STEPS = 2  # number of inspected steps; they are slower than others, so their time must not be measured


class Inspection(Callback):
    """A callback that counts operations in the first training step and saved activations in the second.

    Attributes:
        flops: Operations of the first step.
        saved: Activations that autograd saved for the backward pass of the second step.
        weights: Size of all weights in memory in bytes, frozen ones included.
        gradients: Size of the gradients in bytes.
        optimizer_state: Size of the optimizer state in bytes.
        batch: Size of the largest batch in bytes.
        peak: Largest allocation on a CUDA device after the inspected steps in bytes; None on other devices.
    """

    def __init__(self) -> None:
        self.flops = Flops()
        self.saved = SavedActivations(set())
        self.weights = self.gradients = self.optimizer_state = self.batch = 0
        self.peak: int | None = None
        self._steps_done = 0
        self._contexts = ExitStack()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start counting operations in the first step, activations in the second, and the memory peak after both."""
        self.batch = max(self.batch, batch_bytes(batch))
        if self._steps_done == 0:
            self.flops = self._contexts.enter_context(counted_flops())
        elif self._steps_done == 1:
            self.saved = self._contexts.enter_context(saved_activations(pl_module))
        elif self._steps_done == STEPS and pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Mark the operations that follow as backward, and stop recording activations."""
        self.flops.backward = True
        if self._steps_done == 1:
            self._contexts.close()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measure the gradients while they exist: they are freed after the step."""
        self.gradients = gradient_bytes(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop counting, and advance to the next step."""
        self._contexts.close()
        self._steps_done += 1

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the weights, the optimizer state and, on CUDA, the peak of the allocated memory."""
        self.weights = weight_bytes(pl_module)
        self.optimizer_state = sum(map(optimizer_bytes, trainer.optimizers))
        if pl_module.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(pl_module.device)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the counting contexts, so that they do not stay active after an error."""
        self._contexts.close()
