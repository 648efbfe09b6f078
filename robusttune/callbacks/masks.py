"""Which samples lack a side by protocol, kept with the run."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from robusttune.data import ImageTextDataModule
from robusttune.terminal import say


class MaskFiles(Callback):
    """Writes ``missing/<split>.parquet`` into the run's folder, for `data.missing` to read again."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.log_dir is None or not trainer.is_global_zero:
            return
        if isinstance(data, ImageTextDataModule) and data.masks:
            folder = Path(trainer.log_dir) / "missing"
            data.write_masks(folder)
            say(f"Masks written to {folder}")
