"""A report: what it says, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from robusttune.errors import RobustTuneError
from robusttune.escaping import shell
from robusttune.report.compare import Comparison, compare, named
from robusttune.report.conditions import COMPLETE, MEAN
from robusttune.report.contents import (
    caveat,
    difference_table,
    effective_table,
    finding,
    main_table,
    quality_table,
    robustness_table,
)
from robusttune.report.models import group
from robusttune.report.plots import Drawn, draw_all
from robusttune.report.robustness import effective_robustness
from robusttune.report.runs import Run, find_runs
from robusttune.report.tables import Table


class LeftOut(NamedTuple):
    """A run that does not count.

    Attributes:
        folder: of it.
        reason: why it does not.
        command: that mends it; empty where there is none.
    """

    folder: str
    reason: str
    command: str


class Section(NamedTuple):
    """A part of a report.

    Attributes:
        title: of the part.
        table: None for none.
        plots: by name.
    """

    title: str
    table: Table | None
    plots: dict[str, Drawn]


class Document(NamedTuple):
    """A report.

    Attributes:
        finding: one sentence, and another where models were tested differently.
        left_out: runs that do not count.
        comparison: that it is of.
        sections: the first has the main table.
    """

    finding: str
    left_out: list[LeftOut]
    comparison: Comparison
    sections: list[Section]

    @property
    def tables(self) -> list[Table]:
        return [section.table for section in self.sections if section.table is not None]

    @property
    def plots(self) -> dict[str, Drawn]:
        return {name: plot for section in self.sections for name, plot in section.plots.items()}


def report_on(
    paths: Sequence[str], baseline: str | None = None, trend: Sequence[str] = (), metric: str | None = None
) -> Document:
    """The report on the runs that are or lie in the folders.

    Args:
        paths: folders.
        baseline: label of the model that others are compared with; by default the first.
        trend: labels of models without a robustness intervention, for effective robustness.
        metric: by default the headline of the task.

    Raises:
        RobustTuneError: there are no runs that count, they are of different tasks, or a name or a metric is unknown.
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
        left_out.append(LeftOut(str(run.folder), reason, ""))
    comparison = compare(models, baseline, metric)
    effective = None
    if trend:
        of_trend = [named(models, name, "--trend") for name in trend]
        effective = effective_table(comparison, effective_robustness(comparison, of_trend), of_trend)
    said = " ".join(filter(None, [finding(comparison), caveat(comparison)]))
    return Document(said, left_out, comparison, _sections(comparison, effective))


def _sections(comparison: Comparison, effective: Table | None) -> list[Section]:
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
        there = {name: plots[name] for name in names if name in plots}
        if table is not None or there:
            sections.append(Section(table.title if table is not None else title, table, there))
    return sections


def _left_out(run: Run) -> LeftOut:
    checkpoints = run.folder / "checkpoints"
    config = f"--config {shell(run.folder / 'config.yaml')}"
    if not run.finished:
        last = checkpoints / "last.ckpt"
        resume = f" --ckpt_path {shell(last)}" if last.exists() else ""
        return LeftOut(str(run.folder), "interrupted", f"robusttune fit {config}{resume}")
    if run.tested is not None:
        checkpoint = checkpoints / run.tested.asked["tested.checkpoint"]
        conditions = ", ".join([COMPLETE, *(name for name in run.tested.values if name != MEAN)])
        test = f"robusttune test {config} --ckpt_path {shell(checkpoint)} --data.conditions {shell(f'[{conditions}]')}"
        return LeftOut(str(run.folder), f"tested without the condition {COMPLETE}", test)
    best, last = checkpoints / "best.ckpt", checkpoints / "last.ckpt"
    checkpoint = last if last.exists() and not best.exists() else best
    return LeftOut(str(run.folder), "never tested", f"robusttune test {config} --ckpt_path {shell(checkpoint)}")
