"""Tables of a report, and their conversion to Markdown, LaTeX and terminal output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Group
from rich.table import Table as RichTable

from robusttune.escaping import markdown, visible
from robusttune.terminal import cell as as_cell

NOTHING = "-"  # text of a cell without a known value


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: Number with its interval or standard deviation, or ``-``.
        strong: Flag for bold text.

    Example:
        >>> Cell("0.912 ± 0.003", strong=True).text
        '0.912 ± 0.003'
    """

    text: str = NOTHING
    strong: bool = False


class Rows(NamedTuple):
    """A group of rows under a heading.

    Attributes:
        heading: Heading of the group; empty for none.
        rows: Name of each row, and its cells, one per column.

    Example:
        >>> Rows("missing modality", [("no_image", [Cell("0.71"), Cell("0.68")])]).heading
        'missing modality'
    """

    heading: str
    rows: list[tuple[str, list[Cell]]]


class Table(NamedTuple):
    """A table whose first column holds the names of the rows.

    Attributes:
        title: Title in plain text.
        columns: Headers of the columns, without the column of the row names.
        groups: Groups of rows.
        note: Explanation of the table; may be empty.

    Example:
        >>> table = Table("Accuracy", ["MMRL"], [Rows("", [("complete", [Cell("0.9", strong=True)])])])
        >>> print(as_markdown(table), end="")
        |  | MMRL |
        | --- | ---: |
        | complete | **0.9** |
    """

    title: str
    columns: list[str]
    groups: list[Rows]
    note: str = ""


def as_markdown(table: Table) -> str:
    """Return a Markdown table with right-aligned cells; it has neither the title nor the note."""
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
    """Return a LaTeX ``table`` environment that is at most as wide as the line, with title and note as its caption.

    It needs the packages booktabs and graphicx.
    """
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
    r"""Escape plain text so that LaTeX shows it unchanged.

    A text that starts with a bracket is put into braces, because LaTeX would read it as an argument of a preceding
    line break.

    Example:
        >>> print(latex("50 % [a_b]"))
        50 \% [a\_b]
    """
    text = "".join(LATEX.get(letter, letter) for letter in visible(" ".join(text.split())))
    return f"{{{text}}}" if text.startswith("[") else text


def as_rich(table: Table, width: int) -> Group:
    """Return a table for the terminal; columns that do not fit into the width continue in a further table below.

    Args:
        table: Table to show.
        width: Width of the terminal in letters.
    """
    names = max((len(name) for _, rows in table.groups for name, _ in rows), default=0)
    widest = max((len(cell.text) for _, rows in table.groups for _, cells in rows for cell in cells), default=1)
    step = max(1, (width - names - 4) // (max(widest, 8) + 3))
    starts = range(0, len(table.columns), step)
    return Group(as_cell(table.title, "bold"), *(_rich(table, slice(start, start + step)) for start in starts))


def _rich(table: Table, columns: slice) -> RichTable:
    """Return some columns of a table for the terminal."""
    rich_table = RichTable()
    rich_table.add_column("", no_wrap=True)
    for column in table.columns[columns]:
        rich_table.add_column(as_cell(column), justify="right", overflow="fold")
    for heading, rows in table.groups:
        rich_table.add_section()
        if heading:
            rich_table.add_row(as_cell(heading, "italic"))
        for name, cells in rows:
            texts = (as_cell(cell.text, "bold green" if cell.strong else "") for cell in cells[columns])
            rich_table.add_row(as_cell(name), *texts)
    return rich_table
