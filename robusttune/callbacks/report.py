"""The report of a test: a table of conditions on the terminal, and files in the folder of the checkpoint's run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from robusttune.callbacks.next_step import next_step
from robusttune.callbacks.report_files import Values, write_report
from robusttune.callbacks.run_folder import run_folder_of
from robusttune.corruption.conditions import Conditions
from robusttune.data import ImageTextDataModule
from robusttune.data.description import describe_split, is_unchanged
from robusttune.data.sources.base import Source
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.evaluation.robustness import curves, relative
from robusttune.evaluation.tables import recalls
from robusttune.ranks import is_rank_zero, total_over_ranks
from robusttune.tasks import RobustTask
from robusttune.terminal import cell, print_line
from robusttune.types import Split

HEADERS = {
    "base_accuracy": "base",
    "new_accuracy": "new",
    "harmonic_mean": "harmonic mean",
    "unknown_accuracy": "all classes",
    "bayes_accuracy": "Bayes accuracy",
    "average_precision": "average precision",
    "calibration_error": "calibration error",
}
ON_TERMINAL = (  # metrics that the terminal shows; the files have all of them
    *("accuracy", "base_accuracy", "new_accuracy", "harmonic_mean", "unknown_accuracy"),
    *("bayes_accuracy", "f1_macro", "f1_micro", "calibration_error", "loss"),
)


class ConditionReport(Callback):
    """A callback that writes and prints the results of `validate` and `test`.

    The files are in ``report/`` in the folder of the checkpoint's run: ``test.json`` has all results, ``test.csv`` one
    row a condition, ``test_classes.csv`` one row a condition and class, ``test.parquet`` one row a condition and
    sample, ``test.png`` some samples, and ``missing/test.parquet`` the masks of missing modalities. ``test.parquet`` is
    a folder with a Parquet file of each process's samples. First the files are written, all or none of them, then the
    table is printed.

    Args:
        name: Name of a test's files, in place of ``test``, so that several tests of a checkpoint keep their reports.
    """

    def __init__(self, name: str = "test") -> None:
        self.name = name

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the results of a test.

        Raises:
            RobustTuneError: The files cannot be written.
        """
        self._report(trainer, pl_module, "test", "test", self.name)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the results of `validate`. Validations within a fit are only logged.

        Raises:
            RobustTuneError: The files cannot be written.
        """
        if trainer.state.fn == "validate":
            self._report(trainer, pl_module, "val", "validate", "validate")

    def _report(self, trainer: Trainer, task: LightningModule, split: Split, verb: str, name: str) -> None:
        assert isinstance(task, RobustTask)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        results, checkpoint = _results(trainer, task, split), trainer.ckpt_path
        files = (
            []
            if checkpoint is None
            else write_report(run_folder_of(checkpoint) / "report", results, task.metrics, data, split, name)
        )
        if not is_rank_zero():
            return
        changed = isinstance(data, ImageTextDataModule) and not is_unchanged(data, split)
        title = f"{verb}: {checkpoint or 'untrained'}{', with noise or missing modalities' * changed}"
        lead = {condition: row.get(results["headline"]) for condition, row in results["intervals"].items()}
        Console().print(as_table(results["conditions"], lead, results["headline"], title))
        for line in files:
            print_line(line)
        if checkpoint is not None and split == "test":
            print_line(next_step(run_folder_of(checkpoint), data))


def _results(trainer: Trainer, task: RobustTask, split: Split) -> dict[str, Any]:
    """Return the results of a test or validation as plain data. Every rank must call this."""
    metrics = task.metrics
    values = by_condition(metrics.values)
    data = trainer.datamodule  # type: ignore[attr-defined]
    results: dict[str, Any] = {"checkpoint": str(trainer.ckpt_path)}
    if isinstance(data, ImageTextDataModule):
        results["data"] = describe_split(data, split)
        if is_unchanged(data, split):
            values = with_bayes_accuracy(values, bayes_accuracy(data.source, metrics.conditions, metrics.own.views))
    of_headline = {condition: row[metrics.headline] for condition, row in values.items() if condition != "mean"}
    return results | {
        "headline": metrics.headline,
        "samples": len(metrics.own.of_all),
        "conditions": values,
        "intervals": metrics.intervals(),
        "class_recall": recalls(metrics.measured, metrics.classes.names),
        "robustness": {"relative": relative(of_headline), "curves": curves(metrics.conditions.all, of_headline)},
        **task.extra_results(),
    }


def by_condition(metrics: Mapping[str, float]) -> Values:
    """Group metrics by condition. NaN becomes None.

    Args:
        metrics: Values by ``<condition>/<metric>``.

    Example:
        >>> by_condition({"complete/accuracy": 0.9, "mean/accuracy": float("nan")})
        {'complete': {'accuracy': 0.9}, 'mean': {'accuracy': None}}
    """
    values: Values = {}
    for key, value in metrics.items():
        condition, _, metric = key.partition("/")
        values.setdefault(condition, {})[metric] = None if math.isnan(value) else value
    return values


def with_bayes_accuracy(values: Values, best: dict[str, float | None]) -> Values:
    """Add the Bayes accuracy, and the fraction of it that was reached, after each accuracy over all classes.

    The values are returned unchanged if the Bayes accuracy is unknown under every condition.

    Args:
        values: Values by condition and metric.
        best: Bayes accuracy under each condition, in (0, 1], or None if it is unknown.

    Example:
        >>> with_bayes_accuracy({"complete": {"accuracy": 0.4}}, {"complete": 0.8})
        {'complete': {'accuracy': 0.4, 'bayes_accuracy': 0.8, 'bayes_fraction': 0.5}}
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
            if metric in ("accuracy", "unknown_accuracy"):  # The Bayes accuracy refers to all classes, as these do.
                bayes = best.get(condition)
                fraction = None if bayes is None or value is None else value / bayes
                found[condition] |= {"bayes_accuracy": bayes, "bayes_fraction": fraction}
    return found


def bayes_accuracy(source: Source, conditions: Conditions, views: Tensor) -> dict[str, float | None]:
    """Return the Bayes accuracy under each condition: the best that any model can reach, in (0, 1].

    A condition shows each sample in one view; its value is the average over the samples of all ranks, or None if it is
    unknown. Every rank must call this.

    Args:
        source: Source of the samples.
        conditions: Conditions of the test.
        views: View of each of this rank's samples under each condition, see `OwnSamples.views`.
    """
    best = torch.tensor([math.nan if (b := source.bayes_accuracy(v)) is None else b for v in conditions.views]).double()
    counts = [torch.bincount(row.long(), minlength=len(best)) for row in views]
    shares = total_over_ranks(torch.stack(counts)).double()
    found = (torch.where(shares > 0, best * shares, 0.0).sum(1) / shares.sum(1)).tolist()
    return {name: None if math.isnan(value) else value for name, value in zip(conditions.names, found, strict=True)}


def as_table(values: Values, intervals: Mapping[str, tuple[float, float] | None], headline: str, title: str) -> Table:
    """Return a Rich table with one row a condition and one column a metric.

    Args:
        values: Values by condition and metric.
        intervals: 95 % confidence interval of the headline metric under each condition, or None.
        headline: Metric whose intervals are shown.
        title: Title of the table.
    """
    table = Table(title=cell(title, "table.title"), title_justify="left")
    table.add_column("condition", no_wrap=True)
    shown = [metric for metric in next(iter(values.values()), {}) if metric in ON_TERMINAL]
    # The table has no room for all metrics.
    omitted = {"harmonic_mean": LOWER_IS_BETTER, "accuracy": ("f1_macro",)}.get(headline, ())
    shown = [metric for metric in shown if metric not in omitted]
    if any(row.get("bayes_accuracy") is None for row in values.values()):  # Long names of conditions need the room.
        shown = [metric for metric in shown if metric != "bayes_accuracy"]
    for metric in shown:
        table.add_column(HEADERS.get(metric, metric), justify="right", min_width=6)
        if metric == headline:
            table.add_column("95 % interval", justify="right", no_wrap=True)
    for condition, row in values.items():
        if condition == "mean":
            if len(values) == 2:  # The mean over a single condition would repeat it.
                continue
            table.add_section()
        cells = []
        for metric in shown:
            cells.append("-" if (value := row.get(metric)) is None else f"{value:.4f}")
            if metric == headline:
                interval = intervals.get(condition)
                cells.append("" if interval is None else f"{interval[0]:.3f}-{interval[1]:.3f}")
        table.add_row(cell(condition), *cells)
    return table
