"""The folder of a run, ``<root>/<name>/<n>``: one for each fit, locked while the fit runs."""

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
from robusttune.checkpoint_file import read_checkpoint
from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.escaping import shell
from robusttune.interruption import ignore, slurm_job
from robusttune.paths import atomic_write, user_path
from robusttune.ranks import on_rank_zero
from robusttune.run_names import FINISHED, PROCESS, is_run_number, run_folders
from robusttune.terminal import print_line


class RunFolder(SaveConfigCallback):
    """A callback that creates the folder of a fit, its loggers and its ``config.yaml``.

    At the end it marks the run as finished, and prints the path of the best checkpoint.

    Args:
        settings: Positional arguments of Lightning's `SaveConfigCallback`.
        folder: Folder of the run to resume, or None for a new run.
    """

    def __init__(self, *settings: Any, folder: Path | None = None) -> None:
        super().__init__(*settings)
        self.earlier = folder
        self.seconds = 0.0  # seconds of training until the clock was started last
        self._begun: float | None = None  # None while the clock stands still
        self._process: IO[str] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the folder of a fit, attach the loggers, and write ``config.yaml`` for a new run.

        Raises:
            RobustTuneError: The folder cannot be written, or another process trains in it.
        """
        if stage != "fit":
            return
        self.folder = self._open()
        given = self.config.ckpt_path
        begun = 0 if given is None else int(read_checkpoint(given)["global_step"])
        trainer.loggers = [*self._loggers(trainer, begun), *trainer.loggers]
        if self.earlier is not None:
            rank_zero_info(f"{_short(self.folder)} goes on after {counted(begun, 'step')}")
            return
        # Leave the checkpoint out of config.yaml: a run that is started from the file must not load it again.
        self.config = self.config.clone()
        self.config.ckpt_path = self.config.resume = self.config.data.facts = None
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._begun = perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.seconds, self._begun = self._elapsed(), None

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds of training so far, in all processes of this run."""
        return {"seconds": self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the seconds of training in earlier processes."""
        self.seconds = state_dict["seconds"]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the run as finished, and print the best checkpoint with the command that tests it."""
        ignore()
        if trainer.is_global_zero:  # Lightning does not call this hook after an interrupted fit.
            done = {"epochs": trainer.current_epoch, "steps": trainer.global_step, "seconds": round(self._elapsed(), 1)}
            with atomic_write(self.folder / FINISHED) as partial:
                partial.write_text(json.dumps(done) + "\n", encoding="utf-8")
        best = [c for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint) and c.best_model_path]
        if trainer.is_global_zero and best:
            path = _short(Path(best[0].best_model_path))
            print_line(f"Best checkpoint ({best[0].monitor} {best[0].best_model_score:.4f}): {path}")
            if not self.config.test_best:
                print_line(f"Test it: robusttune test --ckpt_path {shell(_short(self.folder))}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the folder."""
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Release the folder."""
        self._release()

    def _release(self) -> None:
        if self._process is not None:
            self._process.close()

    def _elapsed(self) -> float:
        """Return the seconds of training, in all processes of this run."""
        return self.seconds + (0.0 if self._begun is None else perf_counter() - self._begun)

    def _loggers(self, trainer: Trainer, begun: int) -> list[Logger]:
        """Create the loggers of this run. ``begun`` is the number of steps that are already done."""
        location: dict[str, Any] = {"save_dir": user_path(self.config.run_root), "name": self.config.name}
        location["version"] = self.folder.name
        metrics = CSVLogger(**location)
        if trainer.is_global_zero:
            take_up(metrics, begun)
        if not find_spec("tensorboard"):
            return [metrics]
        return [metrics, TensorBoardLogger(**location, default_hp_metric=False, purge_step=begun)]

    def _open(self) -> Path:
        """Open the run's folder on rank 0, and return its path on all ranks. An error is raised on all ranks."""

        def open_folder(earlier: list[Path | None]) -> Path:
            """Open, lock and clean up the folder, on rank 0. ``earlier`` has the run that each rank has found."""
            root = run_folders(self.config.run_root, self.config.name)
            if len({*earlier}) > 1:
                raise RobustTuneError(f"{root} has changed while the ranks looked for a run to resume: try again")
            try:
                folder = self.earlier or next_folder(root)
                self._process = hold(folder)
            except OSError as error:
                raise RobustTuneError(
                    f"{root!s:.300} cannot be written ({error.strerror}): give another run_root or name"
                ) from error
            for partial in folder.glob("checkpoints/.*.partial"):  # A process that was killed while writing left them.
                partial.unlink()
            return folder

        return on_rank_zero(self.earlier, open_folder)


def hold(folder: Path) -> IO[str]:
    """Lock the folder of a run for this process, and write host, process id and SLURM job to ``process.json``.

    Args:
        folder: Folder of the run.

    Returns:
        Open file that holds the lock. Closing it releases the lock.

    Raises:
        RobustTuneError: Another process holds the lock.
        OSError: The folder cannot be written.
    """
    file = (folder / PROCESS).open("a+", encoding="utf-8")
    try:
        # A lock of lockf belongs to this process alone: its loader workers do not inherit it, and cannot keep it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise RobustTuneError(
            f"another process trains in {folder} ({file.read().strip()}): wait for it, or leave --resume out"
        ) from None
    except OSError as error:
        rank_zero_warn(f"{folder} cannot be locked ({error.strerror}): make sure that no other process resumes it")
    file.truncate(0)
    file.write(json.dumps({"host": os.uname().nodename, "pid": os.getpid(), "slurm_job": slurm_job()}) + "\n")
    file.flush()
    return file


def run_folder_of(checkpoint: str | Path) -> Path:
    """Return the folder of the run that a checkpoint belongs to.

    A checkpoint in a folder ``checkpoints`` belongs to the run above it; any other to its own folder.

    Example:
        >>> run_folder_of("runs/mmrl/0/checkpoints/best.ckpt").as_posix()
        'runs/mmrl/0'
    """
    folder = Path(checkpoint).parent
    return folder.parent if folder.name == "checkpoints" else folder


def next_folder(parent: Path) -> Path:
    """Create the folder with the next free number, and return it. Two processes never get the same one.

    Args:
        parent: Folder of all runs of a name; it is created if it is missing.
    """
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
    """Return a path relative to the working directory if it is below it; else the path itself."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
