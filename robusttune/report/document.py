"""The structure of a report: its finding, its sections in order, and the runs that it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from robusttune.corruption.grammar import COMPLETE
from robusttune.errors import RobustTuneError
from robusttune.escaping import shell
from robusttune.report.compare import Comparison, compare, named
from robusttune.report.conditions import MEAN
from robusttune.report.contents import (
    difference_table,
    effective_table,
    main_table,
    quality_table,
    robustness_table,
)
from robusttune.report.models import group
from robusttune.report.plots import Drawn, draw_all
from robusttune.report.robustness import effective_robustness
from robusttune.report.runs import Run, find_runs
from robusttune.report.sentences import caveat, finding
from robusttune.report.tables import Table
from robusttune.report.values import Values, values_of


class ExcludedRun(NamedTuple):
    """A run that is not part of the report.

    Attributes:
        folder: Folder of the run.
        reason: Reason for leaving it out.
        command: Command that makes the run complete; empty if there is none.

    Example:
        >>> ExcludedRun("runs/molt/0", "interrupted", "robusttune fit --config runs/molt/0/config.yaml").reason
        'interrupted'
    """

    folder: str
    reason: str
    command: str


class Section(NamedTuple):
    """A section of a report.

    Attributes:
        title: Title of the section.
        table: Table of the section, or None.
        plots: Plots of the section by name.

    Example:
        >>> Section("Accuracy by condition", Table("Accuracy by condition", ["molt"], []), plots={}).table.columns
        ['molt']
    """

    title: str
    table: Table | None
    plots: dict[str, Drawn]


class Document(NamedTuple):
    """A report on finished runs.

    Attributes:
        title: Title of the report.
        finding: A few sentences with the main result and with what limits it.
        left_out: Runs that are not part of the report.
        values: All values, for the CSV file.
        sections: Sections in order; the first one has the main table.
    """

    title: str
    finding: str
    left_out: list[ExcludedRun]
    values: Values
    sections: list[Section]

    @property
    def tables(self) -> list[Table]:
        """Return the tables of all sections in order."""
        return [section.table for section in self.sections if section.table is not None]

    @property
    def plots(self) -> dict[str, Drawn]:
        """Return the plots of all sections by name."""
        return {name: plot for section in self.sections for name, plot in section.plots.items()}


def report_on(
    paths: Sequence[str], baseline: str | None = None, trend: Sequence[str] = (), metric: str | None = None
) -> Document:
    """Report on all runs in some folders.

    Args:
        paths: Folders of runs, or folders that contain folders of runs at any depth.
        baseline: Label of the reference model for the differences; None for the first model.
        trend: Labels of models without a robustness intervention. The trend for effective robustness is fitted to
            them; without any, effective robustness is left out.
        metric: Name of the metric to compare; None for the headline metric of the task.

    Raises:
        RobustTuneError: No run is finished and tested on complete samples, the runs are for different tasks, or a
            label or the metric is unknown.
    """
    runs = find_runs(paths)
    counted = [run for run in runs if run.tested is not None and COMPLETE in run.tested.values]
    left_out = [_left_out(run) for run in runs if run.tested is None or COMPLETE not in run.tested.values]
    if not counted:
        raise RobustTuneError(
            f"no run of {len(runs)} is finished and tested, the first is {left_out[0].folder} ({left_out[0].reason}): "
            f"run {left_out[0].command}"
        )
    models, repeats = group(counted)
    for run, other in repeats:
        reason = f"the same configuration and seeds as {other.folder}, which counts"
        left_out.append(ExcludedRun(str(run.folder), reason, ""))
    comparison = compare(models, baseline, metric)
    effective = None
    if trend:
        trend_models = [named(models, name, "--trend") for name in trend]
        effective = effective_table(comparison, effective_robustness(comparison, trend_models), trend_models)
    summary = " ".join(filter(None, [finding(comparison), caveat(comparison)]))
    return Document("robusttune report", summary, left_out, values_of(comparison), _sections(comparison, effective))


def _sections(comparison: Comparison, effective: Table | None) -> list[Section]:
    """Return the sections that have a table or at least one plot."""
    plots = draw_all(comparison)
    parts: list[tuple[Table | None, tuple[str, ...], str]] = [
        (main_table(comparison), (), ""),
        (None, ("missing_rates",), "Missing at a rate"),
        (difference_table(comparison), (), ""),
        (None, ("image_noise", "text_noise"), "Noise"),
        (quality_table(comparison), ("calibration",), "Calibration"),
        (robustness_table(comparison), (), ""),
        (effective, (), ""),
        (None, ("canonical_correlation",), "Canonical correlation"),
        (None, ("confusion",), "Confusion"),
    ]
    sections = []
    for table, names, title in parts:
        drawn = {name: plots[name] for name in names if name in plots}
        if table is not None or drawn:
            sections.append(Section(table.title if table is not None else title, table, drawn))
    return sections


def _left_out(run: Run) -> ExcludedRun:
    """Return why a run is not part of the report, and the command that finishes or tests it."""
    checkpoints = run.folder / "checkpoints"
    config = f"--config {shell(run.folder / 'config.yaml')}"
    if not run.finished:
        last = checkpoints / "last.ckpt"
        resume = f" --ckpt_path {shell(last)}" if last.exists() else ""
        return ExcludedRun(str(run.folder), "interrupted", f"robusttune fit {config}{resume}")
    if run.tested is not None:
        checkpoint = checkpoints / run.tested.test_settings["tested.checkpoint"]
        conditions = ", ".join([COMPLETE, *(name for name in run.tested.values if name != MEAN)])
        tested = f"--data.evaluation.conditions {shell(f'[{conditions}]')}"
        test = f"robusttune test {config} --ckpt_path {shell(checkpoint)} {tested}"
        return ExcludedRun(str(run.folder), f"tested without the condition {COMPLETE}", test)
    best, last = checkpoints / "best.ckpt", checkpoints / "last.ckpt"
    checkpoint = last if last.exists() and not best.exists() else best
    return ExcludedRun(str(run.folder), "never tested", f"robusttune test {config} --ckpt_path {shell(checkpoint)}")
