"""The command ``report``: compare finished runs on a page, in tables and in plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from rich.console import Console

from robusttune.commands.user_errors import user_errors
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.terminal import print_line

if TYPE_CHECKING:
    from robusttune.report import Document


def run(args: list[str]) -> None:
    """Run the command.

    Args:
        args: Arguments of the command line after ``report``.

    Raises:
        RobustTuneError: An argument is invalid, or there are no runs to compare.
    """
    parser = ArgumentParser(
        prog="robusttune report",
        description="Compare finished and tested runs; those that differ in their seeds alone are one model.",
        exit_on_error=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="Folder of a run, or a folder that contains runs.")
    parser.add_argument(
        "--baseline", type=str | None, help="Model to compare the others with; by default the first one."
    )
    parser.add_argument(
        "--trend",
        nargs="+",
        type=str,
        default=[],
        metavar="NAME",
        help="Models without a robustness intervention, for effective robustness.",
    )
    parser.add_argument(
        "--metric", type=str | None, help="Metric to compare; by default the headline metric of the task."
    )
    parser.add_argument("--out", type=str, default="report", help="Folder of the report.")
    with user_errors("report"):
        given = parser.parse_args(args)
    out = user_path(given.out)
    if out.exists() and not out.is_dir():
        raise RobustTuneError(f"--out {given.out} is no folder: give another path")
    from robusttune.report import report_on, write  # it imports torch, and mistakes are found before

    document = report_on(given.runs, given.baseline, given.trend, given.metric)
    write(document, out)
    _show(document, given.out)


def _show(document: Document, out: str) -> None:
    from robusttune.report.tables import as_rich

    console = Console(highlight=False)
    console.print(as_rich(document.tables[0], console.width))
    for run in document.left_out:
        remedy = f". Run {run.command}" if run.command else ""
        print_line(f"excluded: {run.folder}: {run.reason}{remedy}")
    print_line(document.finding)
    print_line(f"Written to {out}: report.html, report.md, report.csv, report.tex, plots")
