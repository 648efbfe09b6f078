"""A callback that looks into real steps of training: operations and memory."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from robusttune.planning.flops import Flops, counted_flops
from robusttune.planning.memory import (
    Saved,
    batch_bytes,
    gradient_bytes,
    optimizer_bytes,
    saved_activations,
    weight_bytes,
)

STEPS = 2  # that are slower for being looked into


class Inspection(Callback):
    """Counts operations in the first step, and what is kept for the backward pass in the second.

    Attributes:
        flops: of the first batch.
        saved: what autograd kept in the second.
        weights: bytes of all weights that are in memory, frozen ones included.
        gradients: bytes.
        optimizer_state: bytes.
        batch: bytes of the largest batch.
        peak: most bytes that were allocated on a CUDA device in later steps; None on others.
    """

    def __init__(self) -> None:
        self.flops = Flops()
        self.saved = Saved(set())
        self.weights = self.gradients = self.optimizer_state = self.batch = 0
        self.peak: int | None = None
        self._seen = 0
        self._looking = ExitStack()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batch = max(self.batch, batch_bytes(batch))
        if self._seen == 0:
            self.flops = self._looking.enter_context(counted_flops())
        elif self._seen == 1:
            self.saved = self._looking.enter_context(saved_activations(pl_module))
        elif self._seen == STEPS and pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self.flops.backward = True
        if self._seen == 1:
            self._looking.close()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self.gradients = gradient_bytes(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._looking.close()
        self._seen += 1

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights = weight_bytes(pl_module)
        self.optimizer_state = sum(map(optimizer_bytes, trainer.optimizers))
        if pl_module.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(pl_module.device)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._looking.close()
