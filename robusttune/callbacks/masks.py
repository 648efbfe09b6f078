"""Which samples lack a side by protocol, kept with the run."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from robusttune.callbacks.run_folder import run_folder_of
from robusttune.data import ImageTextDataModule
from robusttune.terminal import say


class MaskFiles(Callback):
    """Writes ``missing/<split>.parquet`` into the run's folder, for `data.missing` to read again."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.log_dir is not None:
            self._write(trainer, Path(trainer.log_dir))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_beside_checkpoint(trainer, "validate", "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_beside_checkpoint(trainer, "test", "test")

    def _write_beside_checkpoint(self, trainer: Trainer, verb: str, split: str) -> None:
        if trainer.state.fn == verb and trainer.ckpt_path is not None:
            folder = run_folder_of(trainer.ckpt_path) / "report"
            if trainer.is_global_zero:  # that of another report is none of this one
                (folder / "missing" / f"{split}.parquet").unlink(missing_ok=True)
            self._write(trainer, folder)

    def _write(self, trainer: Trainer, folder: Path) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or not isinstance(data, ImageTextDataModule) or not data.masks:
            return
        data.write_masks(folder / "missing")
        say(f"Masks written to {folder / 'missing'}")
