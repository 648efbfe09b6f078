"""Where a run's files go: ``<root>/<name>/<n>``, one folder a fit, never one that is in use."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from rich.console import Console


class RunFolder(SaveConfigCallback):
    """Opens the folder of a fit, with its loggers and config.yaml, and says at the end where the best checkpoint is."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        parent = Path(self.config.run_root) / self.config.name
        folder = Path(trainer.strategy.broadcast(str(next_folder(parent)) if trainer.is_global_zero else ""))
        place: dict[str, Any] = {"save_dir": self.config.run_root, "name": self.config.name, "version": folder.name}
        ours: list[Logger] = [CSVLogger(**place)]
        if find_spec("tensorboard") is not None:
            ours.append(TensorBoardLogger(**place, default_hp_metric=False))
        trainer.loggers = [*ours, *trainer.loggers]
        self.folder = folder
        super().setup(trainer, pl_module, stage)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        best = [
            callback
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint) and callback.best_model_path
        ]
        if trainer.is_global_zero and best:
            path, score = Path(best[0].best_model_path), best[0].best_model_score
            shown = f" ({best[0].monitor} {score:.4f})" if best[0].monitor is not None and score is not None else ""
            config = self.folder / self.config_filename
            Console(soft_wrap=True, highlight=False).print(
                f"Best checkpoint{shown}: {_short(path)}\n"
                f"Test it: robusttune test --config {_short(config)} --ckpt_path {_short(path)}"
            )


def run_folder_of(checkpoint: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to, or the checkpoint's own folder if it lies elsewhere."""
    folder = Path(checkpoint).parent
    return folder.parent if folder.name == "checkpoints" else folder


def next_folder(parent: Path) -> Path:
    """A new folder with the next free number; two processes never get the same one."""
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdigit()]
    for number in count(max(taken, default=-1) + 1):
        try:
            (parent / str(number)).mkdir()
        except FileExistsError:
            continue
        return parent / str(number)
    raise AssertionError("count() does not end")


def _short(path: Path) -> Path:
    """Relative to the working directory where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
