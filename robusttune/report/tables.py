"""A table as Markdown, LaTeX, and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Group
from rich.table import Table as RichTable

from robusttune.escaping import markdown, visible
from robusttune.terminal import cell as as_cell

NOTHING = "-"  # what a cell says where nothing is known


class Cell(NamedTuple):
    """What stands in a table.

    Attributes:
        text: a number with its interval or deviation, or ``-``.
        strong: whether it stands out.
    """

    text: str = NOTHING
    strong: bool = False


class Rows(NamedTuple):
    """Rows under a heading.

    Attributes:
        heading: empty for none.
        rows: the name of each, and a cell a column.
    """

    heading: str
    rows: list[tuple[str, list[Cell]]]


class Table(NamedTuple):
    """A table whose first column has the names of the rows.

    Attributes:
        title: in plain words.
        columns: what stands above the cells.
        groups: of rows.
        note: how it is to be read; may be empty.
    """

    title: str
    columns: list[str]
    groups: list[Rows]
    note: str = ""


def as_markdown(table: Table) -> str:
    """With numbers to the right; what stands out is bold."""
    lines = [_row(["", *map(markdown, table.columns)]), _row(["---", *["---:"] * len(table.columns)])]
    for heading, rows in table.groups:
        if heading:
            lines.append(_row([f"*{markdown(heading)}*", *[""] * len(table.columns)]))
        for name, cells in rows:
            texts = (f"**{markdown(cell.text)}**" if cell.strong else markdown(cell.text) for cell in cells)
            lines.append(_row([markdown(name), *texts]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_latex(table: Table) -> str:
    """A ``table`` of the packages booktabs and graphicx, not wider than the line; what stands out is bold."""
    width = len(table.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(' '.join(filter(None, [table.title + '.', table.note])))}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
        _latex_row(["", *map(latex, table.columns)]),
    ]
    for heading, rows in table.groups:
        lines.append(r"\midrule")
        if heading:
            lines.append(rf"\multicolumn{{{width + 1}}}{{l}}{{\emph{{{latex(heading)}}}}} \\")
        for name, cells in rows:
            texts = (rf"\textbf{{{latex(cell.text)}}}" if cell.strong else latex(cell.text) for cell in cells)
            lines.append(_latex_row([latex(name), *texts]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def latex(text: str) -> str:
    """Plain text so that LaTeX shows it as it is. A bracket after a line's end would be an argument."""
    text = "".join(LATEX.get(letter, letter) for letter in visible(" ".join(text.split())))
    return f"{{{text}}}" if text.startswith("[") else text


def as_rich(table: Table, width: int) -> Group:
    """For a terminal of so many letters a line; models that do not fit beside each other follow below."""
    names = max((len(name) for _, rows in table.groups for name, _ in rows), default=0)
    widest = max((len(cell.text) for _, rows in table.groups for _, cells in rows for cell in cells), default=1)
    step = max(1, (width - names - 4) // (max(widest, 8) + 3))
    starts = range(0, len(table.columns), step)
    return Group(as_cell(table.title, "bold"), *(_rich(table, slice(start, start + step)) for start in starts))


def _rich(table: Table, some: slice) -> RichTable:
    shown = RichTable()
    shown.add_column("", no_wrap=True)
    for column in table.columns[some]:
        shown.add_column(as_cell(column), justify="right", overflow="fold")
    for heading, rows in table.groups:
        shown.add_section()
        if heading:
            shown.add_row(as_cell(heading, "italic"))
        for name, cells in rows:
            shown.add_row(
                as_cell(name), *(as_cell(cell.text, "bold green" if cell.strong else "") for cell in cells[some])
            )
    return shown
