"""The checkpoint of the best epoch so far."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from robusttune.evaluation.metrics import LOWER_IS_BETTER
from robusttune.paths import whole_file


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``, by a monitored metric: the greater the better, unless less of it is.

    A fit that goes on from a checkpoint takes the best of the earlier run along, into its own folder.
    """

    def __init__(self, monitor: str) -> None:
        mode = "min" if monitor.endswith(LOWER_IS_BETTER) else "max"
        super().__init__(filename="best", monitor=monitor, mode=mode, enable_version_counter=False)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["callbacks"].get(self.state_key)
        if state is None or state["best_model_score"] is None or self.dirpath is None or not trainer.training:
            return
        earlier, here = Path(state["best_model_path"]), Path(self.dirpath) / "best.ckpt"
        if not here.is_file():  # or it is the same run, in a folder that may have moved
            if not earlier.is_file():
                return
            if trainer.is_global_zero:
                here.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(here) as partial:
                    shutil.copyfile(earlier, partial)
        # Lightning takes over the state of a run in the same folder only.
        state |= {
            "dirpath": self.dirpath,
            "best_model_path": str(here),
            "kth_best_model_path": str(here),
            "best_k_models": {str(here): state["best_model_score"]},
        }
