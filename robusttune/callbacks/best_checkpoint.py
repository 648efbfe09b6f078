"""The checkpoint of the best epoch so far."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.paths import atomic_write


class BestCheckpoint(ModelCheckpoint):
    """A callback that writes ``best.ckpt``, the checkpoint with the best value of a monitored metric.

    The metric is maximised, or minimised if lower values are better, as with a loss. A fit that resumes from a
    checkpoint copies the best checkpoint of the earlier run into its own folder.

    Args:
        monitor: Metric to monitor, such as ``val/mean/accuracy``.

    Example:
        >>> BestCheckpoint("val/mean/loss").mode
        'min'
    """

    def __init__(self, monitor: str) -> None:
        mode = "min" if monitor.endswith(LOWER_IS_BETTER) else "max"
        super().__init__(filename="best", monitor=monitor, mode=mode, enable_version_counter=False)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the best score and checkpoint of the earlier run, copied into this run's folder."""
        state = checkpoint["callbacks"].get(self.state_key)
        if state is None or state["best_model_score"] is None or self.dirpath is None or not trainer.training:
            return
        earlier, here = Path(state["best_model_path"]), Path(self.dirpath) / "best.ckpt"
        if not here.is_file():  # If it is there, the same run goes on, in a folder that may have moved.
            if not earlier.is_file():
                return
            if trainer.is_global_zero:
                here.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(here) as partial:
                    shutil.copyfile(earlier, partial)
        # Lightning restores the state only if the folder is the same, so write this run's paths into it.
        state |= {
            "dirpath": self.dirpath,
            "best_model_path": str(here),
            "kth_best_model_path": str(here),
            "best_k_models": {str(here): state["best_model_score"]},
        }
