"""Where a run's files go: ``<root>/<name>/<n>``, one folder a fit, never one that is in use."""

from __future__ import annotations

import fcntl
import json
import os
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from robusttune.callbacks.best_checkpoint import BestCheckpoint
from robusttune.callbacks.metrics_file import take_up
from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.escaping import shell
from robusttune.interruption import ignore, slurm_job
from robusttune.paths import user_path, whole_file
from robusttune.ranks import on_rank_zero
from robusttune.run_names import is_run_number, run_folders
from robusttune.tasks.checkpoint import read_checkpoint
from robusttune.terminal import say

CONFIG = "config.yaml"  # its settings
PROCESS = "process.json"  # who writes or last wrote to it
FINISHED = "finished.json"  # where the fit has come to its end


class RunFolder(SaveConfigCallback):
    """Opens the folder of a fit, with its loggers and config.yaml.

    At the end it marks the folder as that of a finished run, and says where the best checkpoint is.

    Args:
        folder: of a run to go on with, in place of a new one.
        settings: Lightning's.
    """

    def __init__(self, *settings: Any, folder: Path | None = None) -> None:
        super().__init__(*settings)
        self.earlier = folder
        self.seconds = 0.0  # of training, in processes before this one
        self._process: IO[str] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self.folder = self._open()
        given = self.config.ckpt_path
        begun = 0 if given is None else int(read_checkpoint(given)["global_step"])
        trainer.loggers = [*self._loggers(trainer, begun), *trainer.loggers]
        if self.earlier is not None:
            rank_zero_info(f"{_short(self.folder)} goes on after {counted(begun, 'step')}")
            return
        # What it went on from is no setting of a run: given again, it would be used again.
        self.config = self.config.clone()
        self.config.ckpt_path = self.config.resume = self.config.data.facts = None
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begun = perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._took()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ignore()
        if trainer.is_global_zero:  # a fit that was interrupted does not come here
            done = {"epochs": trainer.current_epoch, "steps": trainer.global_step, "seconds": round(self._took(), 1)}
            with whole_file(self.folder / FINISHED) as partial:
                partial.write_text(json.dumps(done) + "\n", encoding="utf-8")
        best = [c for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint) and c.best_model_path]
        if trainer.is_global_zero and best:
            path, config = Path(best[0].best_model_path), self.folder / CONFIG
            say(f"Best checkpoint ({best[0].monitor} {best[0].best_model_score:.4f}): {_short(path)}")
            say(f"Test it: robusttune test --config {shell(_short(config))} --ckpt_path {shell(_short(path))}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._let_go()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._process is not None:
            self._process.close()

    def _took(self) -> float:
        """Seconds of training."""
        return self.seconds + perf_counter() - self.begun

    def _loggers(self, trainer: Trainer, begun: int) -> list[Logger]:
        """Of this run, which has done so many steps."""
        place: dict[str, Any] = {"save_dir": user_path(self.config.run_root), "name": self.config.name}
        place["version"] = self.folder.name
        metrics = CSVLogger(**place)
        if trainer.is_global_zero:
            take_up(metrics, begun)
        if not find_spec("tensorboard"):
            return [metrics]
        return [metrics, TensorBoardLogger(**place, default_hp_metric=False, purge_step=begun)]

    def _open(self) -> Path:
        """The run's folder, the same on all ranks, which also fail together."""

        def opened(earlier: list[Path | None]) -> Path:
            root = run_folders(self.config.run_root, self.config.name)
            if len({*earlier}) > 1:
                raise RobustTuneError(f"{root} has changed while the ranks looked for a run to go on with: try again")
            try:
                folder = self.earlier or next_folder(root)
                self._process = hold(folder)
            except OSError as error:
                raise RobustTuneError(
                    f"{root!s:.300} cannot be written ({error.strerror}): give another run_root or name"
                ) from error
            for left in folder.glob("checkpoints/.*.partial"):  # by a process that was killed while it wrote
                left.unlink()
            return folder

        return on_rank_zero(self.earlier, opened)


def hold(folder: Path) -> IO[str]:
    """Write down that this process writes to the folder of a run; no other can while the file stays open.

    Raises:
        RobustTuneError: another does.
        OSError: the folder cannot be written.
    """
    file = (folder / PROCESS).open("a+", encoding="utf-8")
    try:
        # The lock is this process's, and not left to its loader workers.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise RobustTuneError(
            f"another process trains in {folder} ({file.read().strip()}): wait for it, or leave --resume out"
        ) from None
    except OSError as error:
        rank_zero_warn(f"{folder} cannot be locked ({error.strerror}): see to it that no other process goes on with it")
    file.truncate(0)
    file.write(json.dumps({"host": os.uname().nodename, "pid": os.getpid(), "slurm_job": slurm_job()}) + "\n")
    file.flush()
    return file


def run_folder_of(checkpoint: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to, or the checkpoint's own folder if it lies elsewhere."""
    folder = Path(checkpoint).parent
    return folder.parent if folder.name == "checkpoints" else folder


def next_folder(parent: Path) -> Path:
    """A new folder with the next free number; two processes never get the same one."""
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in parent.iterdir() if is_run_number(path.name)]
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
