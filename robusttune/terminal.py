"""What is printed: text as it is, whatever names have in them."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from robusttune.escaping import visible


def say(line: object) -> None:
    """Print a line to stdout as it is: Rich neither finds markup in it, nor breaks or colours it."""
    Console(soft_wrap=True, highlight=False, markup=False, emoji=False).print(visible(line))


def cell(text: object, style: str = "") -> Text:
    """Return a cell or a title of a table of Rich that shows the text as it is."""
    return Text(visible(text), style)
