"""Writing a report to files: HTML, Markdown, CSV, LaTeX and plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from robusttune.escaping import csv_cell, markdown, markdown_code
from robusttune.paths import atomic_write
from robusttune.report.compare import Comparison
from robusttune.report.document import Document
from robusttune.report.page import as_html
from robusttune.report.plots import NAMES
from robusttune.report.tables import as_latex, as_markdown

HEADER = ("model", "condition", "metric", "mean", "deviation", "seeds", "low", "high")


def write(document: Document, folder: Path) -> None:
    """Write ``report.html``, ``report.md``, ``report.csv``, ``report.tex`` and the folder ``plots``.

    Each file is replaced atomically. Plots of an older report that this one does not have are removed.

    Args:
        document: Report to write.
        folder: Folder to write to. It is created if it does not exist.
    """
    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        drawn = document.plots.get(name)
        if drawn is None:
            for suffix in ("png", "svg"):
                (plots / f"{name}.{suffix}").unlink(missing_ok=True)
        else:
            _write(plots / f"{name}.png", drawn.png)
            _write(plots / f"{name}.svg", drawn.svg.encode())
    _write(folder / "report.md", as_markdown_report(document).encode())
    _write(folder / "report.csv", as_csv(document.comparison).encode())
    _write(folder / "report.tex", as_latex_report(document).encode())
    _write(folder / "report.html", as_html(document).encode())


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def as_markdown_report(document: Document) -> str:
    """Return the whole report as Markdown that links the plots in the folder ``plots``."""
    parts = ["# robusttune report", markdown(document.finding)]
    if document.left_out:
        runs = (
            f"- {markdown(run.folder)}: {markdown(run.reason)}"
            + (f". Run {markdown_code(run.command)}" if run.command else "")
            for run in document.left_out
        )
        parts += ["## Excluded runs", "\n".join(runs)]
    for section in document.sections:
        parts.append(f"## {markdown(section.title)}")
        if section.table is not None:
            if section.table.columns:
                parts.append(as_markdown(section.table).rstrip())
            parts.append(markdown(section.table.note))
        for name, plot in section.plots.items():
            parts += [f"![{name.replace('_', ' ')}](plots/{name}.png)", markdown(plot.caption)]
    return "\n\n".join(filter(None, parts)) + "\n"


def as_latex_report(document: Document) -> str:
    """Return the tables of the report as LaTeX; they need the packages booktabs and graphicx."""
    tables = [as_latex(table) for table in document.tables if table.columns]
    return "\n".join(["% \\usepackage{booktabs,graphicx}", "", *tables])


def as_csv(comparison: Comparison) -> str:
    """Return all values as CSV, with one line per model, condition and metric.

    Differences to the baseline have the metric ``<metric>_difference``, and ``seeds`` is their number of pairs of runs.
    ``low`` and ``high`` are the ends of the 95 % intervals over samples.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(map(csv_cell, line) for line in _lines(comparison))
    return file.getvalue()


def _lines(comparison: Comparison) -> Iterator[tuple[object, ...]]:
    """Yield the lines of the CSV file, with the columns of `HEADER`."""
    for label, metrics in comparison.estimates.items():
        for metric, conditions in metrics.items():
            for condition, e in conditions.items():
                yield label, condition, metric, e.mean, e.deviation, e.seeds, e.low, e.high
        for condition, d in comparison.differences.get(label, {}).items():
            yield label, condition, f"{comparison.metric}_difference", d.mean, None, d.pairs, d.low, d.high
