"""The table of conditions: on the terminal, as JSON and as CSV beside the checkpoint."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from robusttune.callbacks.run_folder import run_folder_of
from robusttune.data import ImageTextDataModule
from robusttune.paths import whole_file
from robusttune.types import CONDITIONS, Split

Values = dict[str, dict[str, float | None]]  # None where it is unknown
HEADERS = {
    "base_accuracy": "base",
    "new_accuracy": "new",
    "harmonic_mean": "harmonic mean",
    "unknown_accuracy": "kind unknown",
    "best_possible": "best possible",
    "of_the_best_possible": "of the best possible",
}


class ConditionReport(Callback):
    """Shows and writes what `validate` and `test` found: a row a condition, a column a metric."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer, "test", "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._report(trainer, "val", "validate")

    def _report(self, trainer: Trainer, stage: Split, name: str) -> None:
        if not trainer.is_global_zero:
            return
        values = by_condition({k: float(v) for k, v in trainer.callback_metrics.items()}, stage)
        data, damage = trainer.datamodule, ""  # type: ignore[attr-defined]
        about: dict[str, Any] = {"checkpoint": str(trainer.ckpt_path)}
        if isinstance(data, ImageTextDataModule):
            about["data"] = data.describe(stage)
            if data.untouched(stage):
                values = with_best_possible(values, {c.name: data.source.best_accuracy(c) for c in CONDITIONS})
            else:
                damage = ", with noise or missing sides"
        console = Console()
        console.print(as_table(values, title=f"{name}: {trainer.ckpt_path or 'untrained'}{damage}"))
        if trainer.ckpt_path is not None:
            folder = run_folder_of(trainer.ckpt_path) / "report"
            write_report(folder / name, values, about)
            console.print(f"Written to {folder / name}.json and .csv", soft_wrap=True, highlight=False)


def by_condition(metrics: dict[str, float], stage: str) -> Values:
    """``<stage>/<condition>/<metric>`` keys as condition -> metric -> value."""
    values: Values = {}
    for key, value in metrics.items():
        found, _, rest = key.partition("/")
        condition, _, metric = rest.partition("/")
        if found == stage and metric:
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


def as_table(values: Values, title: str) -> Table:
    """Rows are conditions, columns are metrics."""
    table = Table(title=title, title_justify="left")
    table.add_column("condition")
    for metric in next(iter(values.values()), {}):
        table.add_column(HEADERS.get(metric, metric), justify="right")
    for condition, row in values.items():
        if condition == "mean":
            table.add_section()
        table.add_row(condition, *("unknown" if value is None else f"{value:.4f}" for value in row.values()))
    return table


def write_report(stem: Path, values: Values, about: dict[str, Any]) -> None:
    """``<stem>.json``, which also says what it is ``about``, and ``<stem>.csv``, each whole or not there."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    metrics = list(next(iter(values.values()), {}))
    with whole_file(stem.with_suffix(".json")) as partial:
        text = json.dumps({**about, "conditions": values}, indent=2)
        partial.write_text(text + "\n", encoding="utf-8")
    with whole_file(stem.with_suffix(".csv")) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["condition", *metrics])
        writer.writerows([condition, *(row[metric] for metric in metrics)] for condition, row in values.items())
