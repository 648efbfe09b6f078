"""Resuming of a fit: check that the checkpoint has the whole training state, and log the restored parts."""

from __future__ import annotations

from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError

DATA = ImageTextDataModule.__qualname__  # Lightning stores the state of a data module under this key.
PARTS = {
    "loops": "loop progress",
    "optimizer_states": "optimizer states",
    "lr_schedulers": "learning rate schedules",
    "callbacks": "callback states",
    DATA: "data position",
}
REMEDY = "give the last.ckpt of a run, or leave --ckpt_path out"


class TrainingState(NamedTuple):
    """A summary of the training state in a checkpoint, without the weights.

    Attributes:
        steps: Number of optimizer steps taken.
        optimizers: Number of optimizer states.
        schedules: Number of states of learning rate schedules.
        callbacks: State keys of callbacks.
        data: Position in the training data, by ``epoch`` and ``position``; empty if training has not begun.
    """

    steps: int
    optimizers: int
    schedules: int
    callbacks: list[str]
    data: dict[str, int]

    @classmethod
    def of(cls, checkpoint: dict[str, Any], path: str) -> TrainingState:
        """Summarise the training state in a checkpoint.

        A checkpoint of weights alone, such as `robusttune import` writes, has no steps and needs no state.

        Args:
            checkpoint: Checkpoint, as `read_checkpoint` returns it.
            path: Path of the checkpoint, for the error message.

        Raises:
            RobustTuneError: Part of the training state is missing.

        Example:
            >>> TrainingState.of({"global_step": 0}, "weights.ckpt").steps
            0
        """
        steps = int(checkpoint.get("global_step", 0))
        missing = [name for part, name in PARTS.items() if not isinstance(checkpoint.get(part), dict | list)]
        if steps > 0 and missing:
            raise RobustTuneError(f"{path} cannot be resumed, since it has no {', no '.join(missing)}: {REMEDY}")
        optimizers, schedules = (len(checkpoint.get(part, ())) for part in ("optimizer_states", "lr_schedulers"))
        return cls(steps, optimizers, schedules, [*checkpoint.get("callbacks", ())], checkpoint.get(DATA, {}))


class Resumed(Callback):
    """A callback that checks, before the first step, that the training state was restored, and logs it in one line.

    Args:
        path: Path of the checkpoint.
        state: Training state in the checkpoint.
        same_run: Whether the run goes on in its own folder, so that each callback must have its state in the
            checkpoint; in a new run, other callbacks may be used.
    """

    def __init__(self, path: str, state: TrainingState, same_run: bool) -> None:
        self.path = path
        self.state = state
        self.same_run = same_run

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the restored state, and log it.

        Raises:
            RobustTuneError: The number of optimisers or schedules differs from the checkpoint, or, in the same run, a
                callback has no state in it.
        """
        if self.state.steps == 0:
            rank_zero_info(f"weights restored from {self.path}; training starts at its first step")
            return
        counts = {
            "optimizers": (self.state.optimizers, len(trainer.optimizers)),
            "learning rate schedules": (self.state.schedules, len(trainer.lr_scheduler_configs)),
        }
        for part, (found, expected) in counts.items():
            if found != expected:
                raise RobustTuneError(
                    f"{self.path} cannot be resumed, since it has the state of {found} {part}, expected {expected}: "
                    f"{REMEDY}"
                )
        with_state = [callback for callback in trainer.callbacks if callback.state_dict()]  # type: ignore[attr-defined]
        new = [_name(callback) for callback in with_state if callback.state_key not in self.state.callbacks]
        if new and self.same_run:
            raise RobustTuneError(f"{self.path} cannot be resumed, since it has no state of {', '.join(new)}: {REMEDY}")
        rank_zero_info(self._line(trainer, [_name(callback) for callback in with_state], new))

    def _line(self, trainer: Trainer, callbacks: list[str], new: list[str]) -> str:
        restored = [name for name in callbacks if name not in new]
        schedules = [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs]
        parts = [
            f"epoch {trainer.current_epoch}",
            f"step {trainer.global_step}",
            f"optimizer {', '.join(type(optimizer).__name__ for optimizer in trainer.optimizers) or 'none'}",
            f"schedule {', '.join(schedules) or 'none'}",
            f"data position {self.state.data.get('position', 0)} in epoch {self.state.data.get('epoch', 0)}",
            f"callbacks {', '.join(restored) or 'none'}",
        ]
        line = f"restored from {self.path}: {'; '.join(parts)}"
        return f"{line}; without earlier state: {', '.join(new)}" if new else line


def _name(callback: Callback) -> str:
    return type(callback).__name__
