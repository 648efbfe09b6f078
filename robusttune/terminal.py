"""Printing of text literally, without interpreting markup or control characters in it."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from robusttune.escaping import visible


def print_line(line: object) -> None:
    """Print a line to stdout literally: without Rich markup, line breaks or colours.

    Example:
        >>> print_line("[bold]0.5[/bold]")
        [bold]0.5[/bold]
    """
    Console(soft_wrap=True, highlight=False, markup=False, emoji=False).print(visible(line))


def cell(text: object, style: str = "") -> Text:
    """Return a text for a cell or a title of a Rich table that is shown literally.

    Args:
        text: Text, whose control characters are escaped.
        style: Rich style, such as ``bold``.
    """
    return Text(visible(text), style)
