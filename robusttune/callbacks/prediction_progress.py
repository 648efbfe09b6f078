"""The progress of `predict` on stderr: rows, rate and remaining time."""

from __future__ import annotations

import sys
from datetime import timedelta
from time import monotonic
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from robusttune.counting import counted

SECONDS = {True: 0.5, False: 30.0}  # between two lines, on a terminal and in a file


class PredictionProgress(ProgressBar):
    """A progress line of the first process on stderr. On a terminal it is replaced, in a file there are many lines."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._rows = self._total = 0
        self._begun = self._shown = 0.0

    def disable(self) -> None:
        """Show nothing from now on."""
        self._enabled = False

    def enable(self) -> None:
        """Show the progress from now on."""
        self._enabled = True

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._total = sum(part.rows for part in data.own_parts())
        self._begun = self._shown = monotonic()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the rows of a batch, and show the progress if the last line is old enough."""
        self._rows += len(batch)
        if self._enabled and (monotonic() - self._shown > SECONDS[sys.stderr.isatty()] or self._rows == self._total):
            self._shown = monotonic()
            self._show(trainer.world_size)

    def _show(self, processes: int) -> None:
        line = progress_line(self._rows, self._total, monotonic() - self._begun)
        line += f" (process 1 of {processes})" if processes > 1 else ""
        start, end = ("\r\x1b[K", "\n" * (self._rows == self._total)) if sys.stderr.isatty() else ("", "\n")
        sys.stderr.write(f"{start}{line}{end}")
        sys.stderr.flush()


def progress_line(rows: int, total: int, seconds: float) -> str:
    """Return how far a prediction is.

    Args:
        rows: Number of rows that are predicted.
        total: Number of all rows.
        seconds: Time that they took, in seconds.

    Example:
        >>> progress_line(30_000, 90_000, 10.0)
        '30,000 of 90,000 rows, 3,000 rows/s, 0:00:20 remaining'
    """
    rate = rows / max(seconds, 1e-9)
    remaining = timedelta(seconds=round((total - rows) / max(rate, 1e-9)))
    return f"{rows:,} of {counted(total, 'row')}, {rate:,.0f} rows/s, {remaining} remaining"
