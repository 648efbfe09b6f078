"""Writing a report to files: HTML, Markdown, CSV, LaTeX and plots."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from robusttune.escaping import csv_cell, markdown, markdown_code
from robusttune.paths import atomic_write
from robusttune.report.document import Document
from robusttune.report.page import as_html
from robusttune.report.tables import as_latex, as_markdown
from robusttune.report.values import Values

PLOT = re.compile(r"\]\(plots/(\w+)\.png\)")  # a plot that a report in Markdown links


def write(document: Document, folder: Path) -> None:
    """Write ``report.html``, ``report.md``, ``report.csv``, ``report.tex`` and the folder ``plots``.

    Each file is replaced atomically. Plots that an older ``report.md`` links and this report does not have are removed.

    Args:
        document: Report to write.
        folder: Folder to write to. It is created if it does not exist.
    """
    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name in _linked_plots(folder / "report.md") - document.plots.keys():
        for suffix in ("png", "svg"):
            (plots / f"{name}.{suffix}").unlink(missing_ok=True)
    for name, drawn in document.plots.items():
        _write(plots / f"{name}.png", drawn.png)
        _write(plots / f"{name}.svg", drawn.svg.encode())
    _write(folder / "report.md", as_markdown_report(document).encode())
    _write(folder / "report.csv", as_csv(document.values).encode())
    _write(folder / "report.tex", as_latex_report(document).encode())
    _write(folder / "report.html", as_html(document).encode())


def _linked_plots(report: Path) -> set[str]:
    """Return the names of the plots that an earlier report in Markdown links."""
    return {*PLOT.findall(report.read_text(encoding="utf-8", errors="replace"))} if report.is_file() else set()


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def as_markdown_report(document: Document) -> str:
    """Return the whole report as Markdown that links the plots in the folder ``plots``."""
    parts = [f"# {markdown(document.title)}", markdown(document.finding)]
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


def as_csv(values: Values) -> str:
    """Return all values of a report as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(values.header)
    writer.writerows(map(csv_cell, line) for line in values.lines)
    return file.getvalue()
