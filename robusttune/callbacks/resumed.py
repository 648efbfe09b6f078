"""Resuming: check that a checkpoint has all the state of a training, and say what was restored."""

from __future__ import annotations

from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError

DATA = ImageTextDataModule.__qualname__  # the name under which Lightning stores the state of a data module
PARTS = {
    "loops": "loop progress",
    "optimizer_states": "optimizer states",
    "lr_schedulers": "learning rate schedules",
    "callbacks": "callback states",
    DATA: "data position",
}
REMEDY = "give the last.ckpt of a run, or leave --ckpt_path out"


class TrainingState(NamedTuple):
    """What a checkpoint holds besides weights.

    Attributes:
        steps: Number of optimizer steps taken.
        optimizers: Number of optimizer states.
        schedules: Number of states of learning rate schedules.
        callbacks: State keys of callbacks.
        data: Position in the training data, empty where training has not begun.
    """

    steps: int
    optimizers: int
    schedules: int
    callbacks: list[str]
    data: dict[str, int]

    @classmethod
    def of(cls, checkpoint: dict[str, Any], path: str) -> TrainingState:
        """Return the training state in a checkpoint; weights alone, as `robusttune import` writes them, have none.

        Raises:
            RobustTuneError: part of it is missing.
        """
        steps = int(checkpoint.get("global_step", 0))
        missing = [name for part, name in PARTS.items() if not isinstance(checkpoint.get(part), dict | list)]
        if steps > 0 and missing:
            raise RobustTuneError(f"{path} cannot be resumed, since it has no {', no '.join(missing)}: {REMEDY}")
        optimizers, schedules = (len(checkpoint.get(part, ())) for part in ("optimizer_states", "lr_schedulers"))
        return cls(steps, optimizers, schedules, [*checkpoint.get("callbacks", ())], checkpoint.get(DATA, {}))


class Resumed(Callback):
    """Checks that everything was restored, before the first step, and logs it in one line.

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
        if self.state.steps == 0:
            rank_zero_info(f"weights restored from {self.path}; training starts at its first step")
            return
        counts = {
            "optimizers": (self.state.optimizers, len(trainer.optimizers)),
            "learning rate schedules": (self.state.schedules, len(trainer.lr_scheduler_configs)),
        }
        for what, (found, expected) in counts.items():
            if found != expected:
                raise RobustTuneError(
                    f"{self.path} cannot be resumed, since it has the state of {found} {what}, expected {expected}: "
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
