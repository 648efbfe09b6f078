"""What a test leaves: the table of conditions on the terminal, and beside the checkpoint all that was found."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from robusttune.callbacks.file_set import Writers, replace_together
from robusttune.callbacks.picture import draw
from robusttune.callbacks.run_folder import run_folder_of
from robusttune.corruption.conditions import Conditions
from robusttune.data import ImageTextDataModule
from robusttune.data.sources.base import Source
from robusttune.errors import RobustTuneError
from robusttune.escaping import csv_cell
from robusttune.evaluation.metrics import LOWER_IS_BETTER
from robusttune.evaluation.robustness import curves, relative
from robusttune.evaluation.scores import Scores
from robusttune.evaluation.tables import class_rows, sample_tables
from robusttune.tasks import RobustTask
from robusttune.terminal import cell, say
from robusttune.types import Split

Values = dict[str, dict[str, float | None]]  # None where it is unknown
HEADERS = {
    "base_accuracy": "base",
    "new_accuracy": "new",
    "harmonic_mean": "harmonic mean",
    "unknown_accuracy": "kind unknown",
    "bayes_accuracy": "best possible",
    "average_precision": "average precision",
    "calibration_error": "calibration error",
}
ON_TERMINAL = (  # of the metrics; the files have all
    *("accuracy", "base_accuracy", "new_accuracy", "harmonic_mean", "unknown_accuracy"),
    *("bayes_accuracy", "f1_macro", "f1_micro", "calibration_error", "loss"),
)


class ConditionReport(Callback):
    """Writes and shows what `validate` and `test` found.

    In the folder of the checkpoint's run ``report/test.json`` has everything, ``test.csv`` a row a condition,
    ``test_classes.csv`` a row a condition and class, ``test.parquet`` a row a condition and sample, ``test.png`` some
    samples, and ``missing/test.parquet`` which samples lack a side by protocol. They are written first, all or none,
    and shown then.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer, pl_module, "test", "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "val", "validate")

    def _report(self, trainer: Trainer, task: LightningModule, split: Split, verb: str) -> None:
        assert isinstance(task, RobustTask)
        if task.metrics.gathered is None:  # on all ranks but the first
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        about, checkpoint = _found(trainer, task, split), trainer.ckpt_path
        files = (
            [] if checkpoint is None else _write(run_folder_of(checkpoint) / "report", about, task, data, split, verb)
        )
        changed = isinstance(data, ImageTextDataModule) and not data.untouched(split)
        title = f"{verb}: {checkpoint or 'untrained'}{', with noise or missing sides' * changed}"
        lead = {condition: row.get(about["headline"]) for condition, row in about["intervals"].items()}
        Console().print(as_table(about["conditions"], lead, about["headline"], title))
        for line in files:
            say(line)


def _found(trainer: Trainer, task: RobustTask, split: Split) -> dict[str, Any]:
    """Return what a test or validation found, as plain data."""
    metrics, scores = task.metrics, task.metrics.gathered
    assert scores is not None
    values = by_condition(metrics.values)
    data = trainer.datamodule  # type: ignore[attr-defined]
    about: dict[str, Any] = {"checkpoint": str(trainer.ckpt_path)}
    if isinstance(data, ImageTextDataModule):
        about["data"] = data.describe(split)
        if data.untouched(split):
            values = with_bayes_accuracy(values, bayes_accuracy(data.source, metrics.conditions, scores))
    of_headline = {condition: row[metrics.headline] for condition, row in values.items() if condition != "mean"}
    return about | {
        "headline": metrics.headline,
        "samples": len(scores.sample_id),
        "conditions": values,
        "intervals": metrics.intervals(scores),
        "robustness": {"relative": relative(of_headline), "curves": curves(metrics.conditions.all, of_headline)},
        **task.findings(),
    }


def _write(folder: Path, about: dict[str, Any], task: RobustTask, data: Any, split: Split, verb: str) -> list[str]:
    """Write the report of a test or validation, and return a line for each thing that was written.

    Raises:
        RobustTuneError: the folder cannot be written; the report before is as it was.
    """
    metrics, scores, mask = task.metrics, task.metrics.gathered, f"missing/{split}.parquet"
    assert scores is not None
    writers: Writers = {
        f"{verb}.csv": lambda path: _write_rows(path, condition_rows(about["conditions"])),
        f"{verb}_classes.csv": lambda path: write_classes(path, class_rows(metrics, scores)),
        f"{verb}.parquet": lambda path: write_samples(path, sample_tables(metrics, scores)),
    }
    lines = [f"All metrics, classes and samples: {folder / verb}*"]
    if isinstance(data, ImageTextDataModule) and verb == "test":
        writers["test.png"] = lambda path: draw(data, metrics, scores, about["checkpoint"]).save(path, format="PNG")
        lines.append(f"Samples and answers drawn in {folder / 'test.png'}")
    if isinstance(data, ImageTextDataModule) and split in data.masks:
        writers[mask] = lambda path: data.write_mask(split, path)
        lines.append(f"Masks written to {folder / 'missing'}")
    try:
        replace_together(folder, writers, f"{verb}.json", about, stale=[mask])
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)  # pyarrow's strerror is a sentence of its own
        raise RobustTuneError(
            f"the report in {folder} cannot be written ({reason}), and the one before is as it was: "
            f"make room, and {verb} again"
        ) from error
    return lines


def by_condition(metrics: Mapping[str, float]) -> Values:
    """``<condition>/<metric>`` keys as condition -> metric -> value."""
    values: Values = {}
    for key, value in metrics.items():
        condition, _, metric = key.partition("/")
        values.setdefault(condition, {})[metric] = None if math.isnan(value) else value
    return values


def with_bayes_accuracy(values: Values, best: dict[str, float | None]) -> Values:
    """Beside accuracies their share of the best possible ones, where any of these is known.

    Args:
        values: condition -> metric -> value.
        best: the best possible accuracy in (0, 1] under each condition, None where it is unknown.
    """
    known = [accuracy for accuracy in best.values() if accuracy is not None]
    if not known:
        return values
    best = best | {"mean": sum(known) / len(known) if len(known) == len(best) else None}
    found: Values = {}
    for condition, row in values.items():
        found[condition] = {}
        for metric, value in row.items():
            found[condition][metric] = value
            if metric in ("accuracy", "unknown_accuracy"):  # among all classes
                of = best.get(condition)
                share = None if of is None or value is None else value / of
                found[condition] |= {"bayes_accuracy": of, "bayes_fraction": share}
    return found


def bayes_accuracy(source: Source, conditions: Conditions, scores: Scores) -> dict[str, float | None]:
    """By condition the best accuracy in (0, 1] that any model can have, None where it is unknown."""
    best = torch.tensor([math.nan if (of := source.best_accuracy(v)) is None else of for v in conditions.views])
    found = best.double()[torch.from_numpy(conditions.seen(scores.sample_id))].mean(1).tolist()
    return {name: None if math.isnan(value) else value for name, value in zip(conditions.names, found, strict=True)}


def as_table(values: Values, intervals: Mapping[str, tuple[float, float] | None], headline: str, title: str) -> Table:
    """Rows are conditions, columns are metrics, and the interval of one of them."""
    table = Table(title=cell(title, "table.title"), title_justify="left")
    table.add_column("condition", no_wrap=True)
    shown = [metric for metric in next(iter(values.values()), {}) if metric in ON_TERMINAL]
    beside = {"harmonic_mean": LOWER_IS_BETTER, "accuracy": ("f1_macro",)}.get(headline, ())  # there is no room for
    shown = [metric for metric in shown if metric not in beside]
    if any(row.get("bayes_accuracy") is None for row in values.values()):  # long names of conditions need the room
        shown = [metric for metric in shown if metric != "bayes_accuracy"]
    for metric in shown:
        table.add_column(HEADERS.get(metric, metric), justify="right", min_width=6)
        if metric == headline:
            table.add_column("95 % interval", justify="right", no_wrap=True)
    for condition, row in values.items():
        if condition == "mean":
            if len(values) == 2:  # of one condition
                continue
            table.add_section()
        cells = []
        for metric in shown:
            cells.append("-" if (value := row.get(metric)) is None else f"{value:.4f}")
            if metric == headline:
                found = intervals.get(condition)
                cells.append("" if found is None else f"{found[0]:.3f}-{found[1]:.3f}")
        table.add_row(cell(condition), *cells)
    return table


def condition_rows(values: Values) -> Iterable[dict[str, Any]]:
    """Yield a row a condition, with its name and metrics."""
    return ({"condition": name, **row} for name, row in values.items())


def write_classes(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the table of classes, shares with six digits."""
    _write_rows(path, ({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows))


def write_samples(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write one Parquet file of all tables, which are never held at once."""
    writer = None
    for table in tables:
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow({name: csv_cell(value) for name, value in row.items()})
