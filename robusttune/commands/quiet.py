"""Suppression of warnings and log messages of libraries that the user cannot act on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import transformers

WARNINGS = (
    "LightningCLI's args parameter is intended",
    r"Found \d+ module\(s\) in eval mode",  # Frozen encoders are in eval mode on purpose.
    "The `srun` command is available",  # A login node has srun without a job.
    "Experiment logs directory .* exists",  # This run has just created the folder.
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # The call is Lightning's own.
    "Be aware that when using `ckpt_path`, callbacks",  # A test does not need the callbacks of a fit.
    "The dirpath has changed from",  # BestCheckpoint copies the best checkpoint into the new folder.
    "Checkpoint directory .* exists and is not empty",  # A resumed run writes to its own folder.
    "It is recommended to use `self.log\\(.*sync_dist=True\\)`",  # Metrics are the same on all ranks.
    "`LightningModule.configure_optimizers` returned `None`",  # Zero-shot tasks train nothing.
    "The '.*_dataloader' does not have many workers",  # The default depends on the machine's cores.
)
MESSAGES = ("💡 Tip", "TPU available", "Loading `train_dataloader` to estimate", "`weights_only` was not set")


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the listed warnings inside the block; log messages and transformers' progress bars for good."""
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logger = logging.getLogger(name)
        if _is_useful not in logger.filters:
            logger.addFilter(_is_useful)
    with warnings.catch_warnings():
        for pattern in WARNINGS:
            warnings.filterwarnings("ignore", pattern)
        yield


def _is_useful(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(MESSAGES)
