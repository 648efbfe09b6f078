"""Storage of a run's missing-modality masks."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from robusttune.data import ImageTextDataModule
from robusttune.data.description import write_masks
from robusttune.terminal import print_line


class MaskFiles(Callback):
    """A callback that writes the masks of missing modalities to ``missing/<split>.parquet`` in the run's folder.

    The setting ``data.missing`` can read these files again.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the masks of all splits, on rank 0."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        folder = trainer.log_dir  # a broadcast: every rank must ask for it, and equally often
        if folder is None or not trainer.is_global_zero:
            return
        if isinstance(data, ImageTextDataModule) and data.masks:
            write_masks(data, Path(folder) / "missing")
            print_line(f"Masks written to {folder}/missing")
