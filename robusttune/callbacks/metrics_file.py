"""Continuation of ``metrics.csv`` in a resumed run."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


def take_up(logger: CSVLogger, begun: int) -> None:
    """Open the logger's file, and keep the rows that the run logged before the step where it resumes.

    Args:
        logger: Logger that has not logged anything yet.
        begun: Number of optimiser steps that are already done.
    """
    path = Path(logger.log_dir) / ExperimentWriter.NAME_METRICS_FILE
    aside = path.with_name(f".{path.name}.earlier")  # Move the file away, because Lightning deletes a file it finds.
    if path.exists() and not aside.exists():
        path.replace(aside)
    writer = logger.experiment
    if aside.exists():
        writer.metrics = _rows(aside, begun)
        writer.save()
        aside.unlink()


def _rows(path: Path, begun: int) -> list[dict[str, float]]:
    """Return the complete rows of steps below ``begun``."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]  # The last line may be incomplete.
    rows = [row for row in csv.DictReader(whole) if None not in row.values() and int(row["step"]) < begun]
    return [{name: _number(value) for name, value in row.items() if value} for row in rows]


def _number(value: str) -> float:
    return int(value) if value.isdigit() else float(value)
