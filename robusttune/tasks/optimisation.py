"""The optimiser of the trained parameters, with its learning rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from robusttune.errors import RobustTuneError
from robusttune.tasks.schedule import Schedule

OptimizerCallable = Callable[[Iterable[nn.Parameter] | list[dict[str, Any]]], Optimizer]


def adamw(parameters: Iterable[nn.Parameter] | list[dict[str, Any]]) -> Optimizer:
    """Return the default optimiser: AdamW with learning rate 1e-3 and weight decay 0.05.

    Args:
        parameters: Parameters to train, or groups of them.
    """
    return AdamW(parameters, lr=1e-3, weight_decay=0.05)


def parameter_groups(module: nn.Module, decay_biases: bool) -> list[dict[str, Any]]:
    """Return the parameters of a module that require a gradient, in groups for an optimiser.

    Args:
        module: Module of any kind.
        decay_biases: True for one group; False for a second one without weight decay, with all parameters that have
            ``bias`` in their names.

    Example:
        >>> [len(group["params"]) for group in parameter_groups(nn.Linear(2, 2), decay_biases=False)]
        [1, 1]
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if decay_biases:
        return [{"params": [parameter for _, parameter in named]}]
    biases = [parameter for name, parameter in named if "bias" in name]
    others = [parameter for name, parameter in named if "bias" not in name]
    return [{"params": others}, {"params": biases, "weight_decay": 0.0}]


def optimizer_with_schedule(
    module: LightningModule, optimizer: OptimizerCallable, schedule: Schedule, decay_biases: bool
) -> OptimizerLRScheduler:
    """Create the optimiser of a module and its learning rate scheduler, as `configure_optimizers` returns them.

    Args:
        module: Module with a Trainer; its parameters that require a gradient are trained.
        optimizer: Function that creates the optimiser.
        schedule: Schedule of the learning rate.
        decay_biases: False to leave biases out of weight decay, see `parameter_groups`.

    Raises:
        RobustTuneError: The optimiser's arguments are invalid, or the training has no end to schedule towards.
    """
    try:
        made = optimizer(parameter_groups(module, decay_biases))
    except ValueError as error:
        raise RobustTuneError(f"the optimizer cannot be made ({error}): correct model.optimizer") from error
    estimated = module.trainer.estimated_stepping_batches
    if estimated == float("inf"):
        raise RobustTuneError("the schedule has no end: set trainer.max_epochs or trainer.max_steps")
    if estimated == -1 and schedule.every == "step":  # Epochs of streamed samples have an unknown number of steps.
        raise RobustTuneError("the schedule has no end, since the samples are a stream: set trainer.max_steps")
    total = int(estimated) if schedule.every == "step" else module.trainer.max_epochs
    if total is None or total < 0:
        raise RobustTuneError("model.schedule.every is epoch: set trainer.max_epochs")
    scheduler = LambdaLR(made, lambda done: schedule.factor(done, total))
    return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": schedule.every}}
