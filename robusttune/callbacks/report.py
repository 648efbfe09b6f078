"""What a test leaves: the table of conditions on the terminal, and beside the checkpoint all that was found."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from robusttune.callbacks.run_folder import run_folder_of
from robusttune.corruption.conditions import Conditions
from robusttune.data import ImageTextDataModule
from robusttune.data.sources.base import Source
from robusttune.escaping import csv_cell
from robusttune.evaluation.metrics import LOWER_IS_BETTER
from robusttune.evaluation.robustness import curves, relative
from robusttune.evaluation.scores import Scores
from robusttune.evaluation.tables import class_rows, sample_tables
from robusttune.paths import whole_file
from robusttune.tasks import RobustTask
from robusttune.terminal import cell, say
from robusttune.types import Split

Values = dict[str, dict[str, float | None]]  # None where it is unknown
HEADERS = {
    "base_accuracy": "base",
    "new_accuracy": "new",
    "harmonic_mean": "harmonic mean",
    "unknown_accuracy": "kind unknown",
    "best_possible": "best possible",
    "average_precision": "average precision",
    "calibration_error": "calibration error",
}
ON_TERMINAL = (  # of the metrics; the files have all
    *("accuracy", "base_accuracy", "new_accuracy", "harmonic_mean", "unknown_accuracy"),
    *("best_possible", "f1_macro", "f1_micro", "calibration_error", "loss"),
)


class ConditionReport(Callback):
    """Shows and writes what `validate` and `test` found.

    In the folder of the checkpoint's run ``report/test.json`` has everything, ``test.csv`` a row a condition,
    ``test_classes.csv`` a row a condition and class, ``test.parquet`` a row a condition and sample.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer, pl_module, "test", "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "val", "validate")

    def _report(self, trainer: Trainer, task: LightningModule, stage: Split, name: str) -> None:
        assert isinstance(task, RobustTask)
        metrics, scores = task.metrics, task.metrics.gathered
        if scores is None:  # on all ranks but the first
            return
        values = by_condition(metrics.values)
        data, damage = trainer.datamodule, ""  # type: ignore[attr-defined]
        about: dict[str, Any] = {"checkpoint": str(trainer.ckpt_path)}
        if isinstance(data, ImageTextDataModule):
            about["data"] = data.describe(stage)
            if data.untouched(stage):
                values = with_best_possible(values, best_possible(data.source, metrics.conditions, scores))
            else:
                damage = ", with noise or missing sides"
        intervals = metrics.intervals(scores)
        of_headline = {condition: row[metrics.headline] for condition, row in values.items() if condition != "mean"}
        about |= {
            "headline": metrics.headline,
            "samples": len(scores.sample_id),
            "conditions": values,
            "intervals": intervals,
            "robustness": {"relative": relative(of_headline), "curves": curves(metrics.conditions.all, of_headline)},
            **task.findings(),
        }
        console = Console()
        lead = {condition: row.get(metrics.headline) for condition, row in intervals.items()}
        title = f"{name}: {trainer.ckpt_path or 'untrained'}{damage}"
        console.print(as_table(values, lead, metrics.headline, title))
        if trainer.ckpt_path is not None:
            stem = run_folder_of(trainer.ckpt_path) / "report" / name
            stem.with_suffix(".json").unlink(missing_ok=True)  # it comes last, and is never that of another test
            stem.parent.mkdir(parents=True, exist_ok=True)
            write_classes(stem.with_name(f"{name}_classes.csv"), class_rows(metrics, scores))
            write_samples(stem.with_suffix(".parquet"), sample_tables(metrics, scores))
            write_report(stem, about)
            say(f"All metrics, classes and samples: {stem}*")


def by_condition(metrics: Mapping[str, float]) -> Values:
    """``<condition>/<metric>`` keys as condition -> metric -> value."""
    values: Values = {}
    for key, value in metrics.items():
        condition, _, metric = key.partition("/")
        values.setdefault(condition, {})[metric] = None if math.isnan(value) else value
    return values


def with_best_possible(values: Values, best: dict[str, float | None]) -> Values:
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
                found[condition] |= {"best_possible": of, "of_the_best_possible": share}
    return found


def best_possible(source: Source, conditions: Conditions, scores: Scores) -> dict[str, float | None]:
    """By condition the best accuracy in (0, 1] that any model can have, None where it is unknown."""
    best = torch.tensor([math.nan if (of := source.best_accuracy(v)) is None else of for v in conditions.views])
    found = best.double()[torch.from_numpy(conditions.seen(scores.sample_id))].mean(1).tolist()
    return {name: None if math.isnan(value) else value for name, value in zip(conditions.names, found, strict=True)}


def as_table(values: Values, intervals: Mapping[str, tuple[float, float] | None], headline: str, title: str) -> Table:
    """Rows are conditions, columns are metrics, and the interval of one of them."""
    table = Table(title=cell(title), title_justify="left")
    table.add_column("condition", no_wrap=True)
    shown = [metric for metric in next(iter(values.values()), {}) if metric in ON_TERMINAL]
    beside = {"harmonic_mean": LOWER_IS_BETTER, "accuracy": ("f1_macro",)}.get(headline, ())  # there is no room for
    shown = [metric for metric in shown if metric not in beside]
    if any(row.get("best_possible") is None for row in values.values()):  # long names of conditions need the room
        shown = [metric for metric in shown if metric != "best_possible"]
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


def write_report(stem: Path, about: Mapping[str, Any]) -> None:
    """``<stem>.json`` with everything, and ``<stem>.csv`` with a row a condition, each whole or not there."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    _write_rows(stem.with_suffix(".csv"), ({"condition": name, **row} for name, row in about["conditions"].items()))
    with whole_file(stem.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def write_classes(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """The table of classes, shares with six digits."""
    _write_rows(path, ({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows))


def write_samples(path: Path, tables: Iterable[pa.Table]) -> None:
    """One Parquet file of all tables, which are never held at once."""
    with whole_file(path) as partial:
        writer = None
        for table in tables:
            writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow({name: csv_cell(value) for name, value in row.items()})
