"""Which checkpoints a fit keeps: the best so far, and the last."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from robusttune.evaluation.metrics import LOWER_IS_BETTER


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``, by a monitored metric: the greater the better, unless less of it is.

    A fit that goes on from a checkpoint takes the best of the earlier run along, into its own folder.
    """

    def __init__(self, monitor: str) -> None:
        mode = "min" if monitor.endswith(LOWER_IS_BETTER) else "max"
        super().__init__(filename="best", monitor=monitor, mode=mode, enable_version_counter=False)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["callbacks"].get(self.state_key)
        if state is None or self.dirpath is None or not trainer.training:
            return
        earlier, here = Path(state["best_model_path"]), Path(self.dirpath) / "best.ckpt"
        if not earlier.is_file():
            return
        if trainer.is_global_zero and earlier.resolve() != here.resolve():
            here.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(earlier, here)
        # Lightning takes over the state of a run in the same folder only.
        state |= {
            "dirpath": self.dirpath,
            "best_model_path": str(here),
            "kth_best_model_path": str(here),
            "best_k_models": {str(here): state["best_model_score"]},
        }


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``, after each epoch, to go on from."""

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
