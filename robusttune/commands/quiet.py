"""What the user of this project need not read: nothing of it could be acted on."""

from __future__ import annotations

import logging
import warnings

import transformers

WARNINGS = (
    "LightningCLI's args parameter is intended",
    r"Found \d+ module\(s\) in eval mode",  # frozen encoders are meant to be
    "The `srun` command is available",  # on a login node that is no job
    "Experiment logs directory .* exists",  # it is the folder that this run has just made
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own affair
    "Be aware that when using `ckpt_path`, callbacks",  # a test needs none of the callbacks of a fit
    "The dirpath has changed from",  # BestCheckpoint carries the best over
    "Checkpoint directory .* exists and is not empty",  # of a run that goes on
    "It is recommended to use `self.log\\(.*sync_dist=True\\)`",  # metrics are the same on all ranks
    "`LightningModule.configure_optimizers` returned `None`",  # of a task that trains nothing
    "The '.*_dataloader' does not have many workers",  # the default is what the machine has
)
MESSAGES = ("💡 Tip", "TPU available", "Loading `train_dataloader` to estimate", "`weights_only` was not set")


def quieten() -> None:
    """Ignore them; within `warnings.catch_warnings` for as long as that lasts."""
    for pattern in WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logger = logging.getLogger(name)
        if _wanted not in logger.filters:
            logger.addFilter(_wanted)


def _wanted(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(MESSAGES)
