"""Which samples lack a side by protocol, kept with the run."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from robusttune.callbacks.run_folder import run_folder_of
from robusttune.data import ImageTextDataModule
from robusttune.data.mask_files import write_masks


class MaskFiles(Callback):
    """Writes ``missing/<split>.parquet`` into the run's folder, for `data.missing` to read again."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.log_dir is not None:
            self._write(trainer, Path(trainer.log_dir))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_beside_checkpoint(trainer, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_beside_checkpoint(trainer, "test")

    def _write_beside_checkpoint(self, trainer: Trainer, verb: str) -> None:
        if trainer.state.fn == verb and trainer.ckpt_path is not None:
            self._write(trainer, run_folder_of(trainer.ckpt_path) / "report")

    def _write(self, trainer: Trainer, folder: Path) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or not isinstance(data, ImageTextDataModule) or not data.masks:
            return
        write_masks(folder / "missing", data.masks, data.missing)
        Console().print(f"Masks written to {folder / 'missing'}", soft_wrap=True, highlight=False)
