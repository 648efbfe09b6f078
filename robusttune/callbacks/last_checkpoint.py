"""The checkpoint to resume from, which is also written when a signal ends the run."""

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

NOTHING, SAVE, STOP, REQUEUE = range(4)  # Requests of a rank. All ranks fulfil the greatest of their requests.
APART = 10.0  # least seconds between the checkpoints of two epochs; a process that is killed repeats them at most
REQUESTS = {None: NOTHING, interruption.SAVE_AND_REQUEUE: REQUEUE} | dict.fromkeys(interruption.SAVE_AND_STOP, STOP)


class LastCheckpoint(ModelCheckpoint):
    """A callback that writes ``last.ckpt``: after epochs, every few minutes, and when a signal arrives.

    An epoch that ends within ten seconds of the last such checkpoint is left out, unless it is the last one, since a
    short epoch takes less time than writing it.

    After SIGTERM, SIGHUP, Ctrl-C or SIGUSR1, the checkpoint is written at the end of the batch, and then the run ends.
    SLURM can send SIGUSR1 ahead of the time limit; the job is then put back into the queue. All ranks agree on their
    action, so that none waits for another forever. Right before a validation and while gradients are accumulated, the
    action is postponed, because a run that resumed from there would differ from one that was not interrupted.

    Args:
        minutes: Minutes between checkpoints within an epoch, above 0.

    Raises:
        RobustTuneError: ``minutes`` is not above 0; or, in training, a signal has ended the run.

    Example:
        >>> LastCheckpoint(minutes=30.0).filename
        'last'
    """

    def __init__(self, minutes: float) -> None:
        if not minutes > 0:
            raise RobustTuneError(f"checkpoint_minutes is {minutes}: give a time above 0")
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.minutes = minutes
        self._request = NOTHING  # Its checkpoint is written at the end of a batch; the next batch's start fulfils it.

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers, and start the clock."""
        super().on_train_start(trainer, pl_module)
        interruption.listen()  # This replaces Lightning's handlers, one of which communicates with other ranks.
        self._saved_at, self._epoch_saved_at = monotonic(), float("-inf")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint if a rank has received a signal or the time is up."""
        if not _can_resume_after(trainer, batch_idx + 1):
            return
        is_due = monotonic() - self._saved_at >= 60 * self.minutes
        self._request = max_over_ranks(max(REQUESTS[interruption.pending_signal()], SAVE if is_due else NOTHING))
        if self._request != NOTHING:
            trainer.save_checkpoint(Path(str(self.dirpath)) / "last.ckpt")
            self._saved_at = monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint of the finished epoch if it is due, and ask all ranks for signals."""
        now, is_last = monotonic(), _is_last_epoch(trainer)
        is_due = is_last or now - self._epoch_saved_at >= APART
        if trainer.max_steps != -1 and not is_last:
            # With max_steps, Lightning would resume inside the finished epoch. So write after the next batch instead.
            if is_due:
                self._saved_at, self._epoch_saved_at = float("-inf"), now
            return
        request = max_over_ranks(max(REQUESTS[interruption.pending_signal()], SAVE if is_due else NOTHING))
        if request != NOTHING:
            super().on_train_epoch_end(trainer, pl_module)
            self._saved_at = self._epoch_saved_at = monotonic()
        self._request = NOTHING if request == SAVE else request  # The next batch's start ends the run.

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """End the run if a signal has asked for it. The checkpoint was written after the batch before.

        Raises:
            RobustTuneError: A signal has ended the run.
        """
        request, self._request = self._request, NOTHING
        if request == NOTHING:
            return
        _flush_logs(trainer)  # Only now do the logs contain the values of the batch before.
        if request == SAVE:
            return
        signal = interruption.pending_signal()
        interruption.clear_signal()
        if not (request == REQUEUE and _cannot_be_requeued()):
            raise RobustTuneError(
                f"{'a signal' if signal is None else signal.name} has ended the run in epoch {trainer.current_epoch} "
                f"after {counted(trainer.global_step, 'step')}, and all progress is saved: continue with --resume auto",
                reported_elsewhere=rank() > 0,
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Flush the logs, so that everything up to the checkpoint survives the process."""
        _flush_logs(trainer)


def _can_resume_after(trainer: Trainer, batches: int) -> bool:
    """Return whether a run resumed after this many batches of an epoch equals one that was not interrupted."""
    if trainer.fast_dev_run or trainer.should_stop or trainer.global_step == trainer.max_steps:  # type: ignore[attr-defined]
        return False
    if trainer.is_last_batch or batches >= trainer.num_training_batches or batches % trainer.accumulate_grad_batches:
        return False
    done = trainer.fit_loop.total_batch_idx + 1 if trainer.check_val_every_n_epoch is None else batches
    return bool(done % (trainer.val_check_batch or float("inf")))


def _is_last_epoch(trainer: Trainer) -> bool:
    """Return whether the training ends with this epoch."""
    last = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
    return last or trainer.should_stop or trainer.global_step >= trainer.max_steps != -1


def _flush_logs(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        logger.save()


def _cannot_be_requeued() -> bool:
    """Have SLURM requeue the job, if this is one. Return True if that failed, so that training continues."""
    job = interruption.slurm_job()
    problem = None if job is None else on_rank_zero(None, lambda _: interruption.requeue(job))
    if problem is not None:
        rank_zero_warn(f"SLURM job {job} cannot be requeued ({problem}); last.ckpt is written, and training goes on")
    return problem is not None
