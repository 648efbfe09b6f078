"""Fewer validations in a fit with many short epochs."""

from __future__ import annotations

from math import ceil

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from robusttune.tasks.validation_interval import epochs_between_validations


class ValidationInterval(Callback):
    """A callback that leaves out validations if epochs are many and short, see `epochs_between_validations`.

    Settings of the Trainer that ask for another interval than one epoch are left as they are.

    Example:
        >>> ValidationInterval().state_key  # it has no state in checkpoints
        'ValidationInterval'
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the interval, now that the number of batches is known."""
        interval = trainer.val_check_interval
        if trainer.num_training_batches == float("inf"):  # of a stream
            return
        batches = int(trainer.num_training_batches)
        if trainer.check_val_every_n_epoch != 1 or isinstance(interval, int) or interval != 1.0:
            return
        steps = ceil(batches / trainer.accumulate_grad_batches)
        epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
        if trainer.max_steps != -1:
            by_steps = ceil(trainer.max_steps / steps)
            epochs = by_steps if epochs == -1 else min(epochs, by_steps)
        trainer.check_val_every_n_epoch = epochs_between_validations(epochs, steps)
        if trainer.check_val_every_n_epoch > 1:
            rank_zero_info(
                f"validation after every {trainer.check_val_every_n_epoch} epochs, since they have {steps} steps: "
                f"set trainer.val_check_interval to {batches} for one after each epoch"
            )
