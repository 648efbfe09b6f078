"""The optimiser of the trained parameters, with its learning rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from robusttune.errors import RobustTuneError
from robusttune.tasks.schedule import Schedule

OptimizerCallable = Callable[[Iterable[nn.Parameter]], Optimizer]


def adamw(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return the default optimiser: AdamW with learning rate 1e-3 and weight decay 0.05.

    Args:
        parameters: Parameters to train.
    """
    return AdamW(parameters, lr=1e-3, weight_decay=0.05)


def optimizer_with_schedule(
    module: LightningModule, optimizer: OptimizerCallable, schedule: Schedule
) -> OptimizerLRScheduler:
    """Create the optimiser of a module and its learning rate scheduler, as `configure_optimizers` returns them.

    Args:
        module: Module with a Trainer; its parameters that require a gradient are trained.
        optimizer: Function that creates the optimiser.
        schedule: Schedule of the learning rate.

    Raises:
        RobustTuneError: The optimiser's arguments are invalid, or the training has no end to schedule towards.
    """
    try:
        made = optimizer([p for p in module.parameters() if p.requires_grad])
    except ValueError as error:
        raise RobustTuneError(f"the optimizer cannot be made ({error}): correct model.optimizer") from error
    estimated = module.trainer.estimated_stepping_batches
    if estimated == float("inf"):
        raise RobustTuneError("the schedule has no end: set trainer.max_epochs or trainer.max_steps")
    total = int(estimated) if schedule.every == "step" else module.trainer.max_epochs
    if total is None or total < 0:
        raise RobustTuneError("model.schedule.every is epoch: set trainer.max_epochs")
    scheduler = LambdaLR(made, lambda done: schedule.factor(done, total))
    return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": schedule.every}}
