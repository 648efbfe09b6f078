"""The checkpoint to go on from, also after a signal that ends the run."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn

from robusttune import interruption
from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.ranks import max_over_ranks, on_rank_zero, rank

NOTHING, SAVE, STOP, REQUEUE = range(4)  # what a rank wishes; the greatest wish of all is what every rank does
WISHES = {None: NOTHING, interruption.SAVE_AND_REQUEUE: REQUEUE} | dict.fromkeys(interruption.SAVE_AND_STOP, STOP)


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``, after each epoch and so many minutes, and at the end of the batch in which a signal comes.

    SIGTERM, Ctrl-C and SIGUSR1 then end the run; under SLURM, which sends SIGUSR1 ahead of the time limit if asked to,
    the job is put back into the queue after it. All ranks agree on what they do, so that none is left waiting for
    another. Ahead of a validation, and while gradients are accumulated, they wait: what went on from there would not be
    the same.

    Args:
        minutes: after which it is written inside of an epoch, above 0.

    Raises:
        RobustTuneError: ``minutes`` is out of its range; or, in training, a signal has ended the run.
    """

    def __init__(self, minutes: float) -> None:
        if not minutes > 0:
            raise RobustTuneError(f"checkpoint_minutes is {minutes}: give a time above 0")
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.minutes = minutes
        self._wish = NOTHING  # for which the checkpoint is written, and which is fulfilled when the next batch starts

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        interruption.listen()  # in place of Lightning's handlers, one of which communicates
        self._saved_at = monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not _can_go_on_from(trainer, batch_idx + 1):
            return
        waited = monotonic() - self._saved_at >= 60 * self.minutes
        self._wish = max_over_ranks(max(WISHES[interruption.pending_signal()], SAVE if waited else NOTHING))
        if self._wish != NOTHING:
            trainer.save_checkpoint(Path(str(self.dirpath)) / "last.ckpt")
            self._saved_at = monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.max_steps != -1 and not _is_done(trainer):
            # Where steps are counted, Lightning takes a finished epoch for one to finish; so wait for the next batch.
            self._saved_at = float("-inf")
            return
        super().on_train_epoch_end(trainer, pl_module)
        self._saved_at = monotonic()
        self._wish = max_over_ranks(WISHES[interruption.pending_signal()])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        wish, self._wish = self._wish, NOTHING
        if wish == NOTHING:
            return
        _flush_logs(trainer)  # to which what the batch before has logged belongs by now
        if wish == SAVE:
            return
        signal = interruption.pending_signal()
        interruption.clear_signal()
        if not (wish == REQUEUE and _cannot_be_requeued()):
            raise RobustTuneError(
                f"{'a signal' if signal is None else signal.name} has ended the run in epoch {trainer.current_epoch} "
                f"after {counted(trainer.global_step, 'step')}, and nothing of it is lost: go on with --resume auto",
                reported_elsewhere=rank() > 0,
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        _flush_logs(trainer)  # or what was logged up to here could be lost with the process


def _can_go_on_from(trainer: Trainer, batches: int) -> bool:
    """Whether a run that is resumed after so many batches of an epoch is the same as one that was not interrupted."""
    if trainer.fast_dev_run or trainer.should_stop or trainer.global_step == trainer.max_steps:  # type: ignore[attr-defined]
        return False
    if trainer.is_last_batch or batches >= trainer.num_training_batches or batches % trainer.accumulate_grad_batches:
        return False
    done = trainer.fit_loop.total_batch_idx + 1 if trainer.check_val_every_n_epoch is None else batches
    return bool(done % (trainer.val_check_batch or float("inf")))


def _is_done(trainer: Trainer) -> bool:
    """Whether this epoch is the last."""
    last = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
    return last or trainer.should_stop or trainer.global_step >= trainer.max_steps != -1


def _flush_logs(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        logger.save()


def _cannot_be_requeued() -> bool:
    """Have SLURM requeue the job, where there is one; if that fails, training goes on."""
    job = interruption.slurm_job()
    problem = None if job is None else on_rank_zero(None, lambda _: interruption.requeue(job))
    if problem is not None:
        rank_zero_warn(f"SLURM job {job} cannot be requeued ({problem}); last.ckpt is written, and training goes on")
    return problem is not None
