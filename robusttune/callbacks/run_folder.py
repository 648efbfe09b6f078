"""Where a run's files go: ``<root>/<name>/<n>``, one folder a fit, never one that is in use."""

from __future__ import annotations

import json
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from rich.console import Console

from robusttune.callbacks.checkpoints import BestCheckpoint
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path, whole_file
from robusttune.ranks import on_rank_zero

FINISHED = "finished.json"  # in the folder of a fit that has come to its end


class RunFolder(SaveConfigCallback):
    """Opens the folder of a fit, with its loggers and config.yaml.

    At the end it marks the folder as that of a finished run, and says where the best checkpoint is.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self.folder = self._open()
        place: dict[str, Any] = {"save_dir": self.folder.parents[1], "name": self.config.name}
        ours: list[Logger] = [CSVLogger(**place, version=self.folder.name)]
        if find_spec("tensorboard"):
            ours.append(TensorBoardLogger(**place, version=self.folder.name, default_hp_metric=False))
        trainer.loggers = [*ours, *trainer.loggers]
        # What it went on from is no setting of a run: given again, it would be used again.
        self.config = self.config.clone()
        self.config.ckpt_path = self.config.data.facts = None
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = perf_counter()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:  # a fit that was interrupted does not come here
            took = round(perf_counter() - self.begun, 1)
            done = {"epochs": trainer.current_epoch, "steps": trainer.global_step, "seconds": took}
            with whole_file(self.folder / FINISHED) as partial:
                partial.write_text(json.dumps(done) + "\n", encoding="utf-8")
        best = [c for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint) and c.best_model_path]
        if trainer.is_global_zero and best:
            path, config = Path(best[0].best_model_path), self.folder / self.config_filename
            Console(soft_wrap=True, highlight=False).print(
                f"Best checkpoint ({best[0].monitor} {best[0].best_model_score:.4f}): {_short(path)}\n"
                f"Test it: robusttune test --config {_short(config)} --ckpt_path {_short(path)}"
            )

    def _open(self) -> Path:
        """The run's folder, the same on all ranks, which also fail together."""

        def made(_: list[None]) -> Path:
            root = user_path(self.config.run_root) / self.config.name
            try:
                return next_folder(root)
            except OSError as error:
                raise RobustTuneError(
                    f"{root!s:.300} cannot be written ({error.strerror}): give another run_root or name"
                ) from error

        return on_rank_zero(None, made)


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
