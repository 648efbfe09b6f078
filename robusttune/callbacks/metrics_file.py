"""metrics.csv goes on where the run does."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


def take_up(logger: CSVLogger, begun: int) -> None:
    """Open the logger's file, and keep what a run has logged in it before the step with which it goes on.

    Args:
        logger: that has logged nothing yet.
        begun: number of steps that were done.
    """
    path = Path(logger.log_dir) / ExperimentWriter.NAME_METRICS_FILE
    aside = path.with_name(f".{path.name}.earlier")  # Lightning deletes the file that it finds, so it must not find it
    if path.exists() and not aside.exists():
        path.replace(aside)
    writer = logger.experiment
    if aside.exists():
        writer.metrics = _rows(aside, begun)
        writer.save()
        aside.unlink()


def _rows(path: Path, begun: int) -> list[dict[str, float]]:
    """Whole rows of steps before this one."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]  # the last can be torn
    rows = [row for row in csv.DictReader(whole) if None not in row.values() and int(row["step"]) < begun]
    return [{name: _number(value) for name, value in row.items() if value} for row in rows]


def _number(value: str) -> float:
    return int(value) if value.isdigit() else float(value)
