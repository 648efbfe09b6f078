"""Style of the plots: colours, markers, fonts, panels and legends."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import cycle, islice
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.cells import cell_len

from robusttune.escaping import visible

INK, GREY = "#222222", "#8a8a8a"
# The palette of Okabe and Ito for colour-blind readers, without yellow, which is too pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">", "p", "h")
FONT = "DejaVu Sans"  # Matplotlib brings this font along
SIZE = 9  # points
LETTER, LINE = 0.62 * SIZE / 72, 1.35 * SIZE / 72  # upper bound of the mean letter width, and line height, in inches


class Plot(NamedTuple):
    """A figure that is not rendered yet.

    Attributes:
        name: Name of its files, without suffix.
        caption: Explanation in plain text.
        figure: Matplotlib figure.
    """

    name: str
    caption: str
    figure: Figure


class CurveStyle(NamedTuple):
    """The style of a model, which is the same in every plot.

    Attributes:
        label: Label in legends.
        colour: Colour of lines and markers, such as ``#0072b2``.
        marker: Matplotlib marker, such as ``o``.

    Example:
        >>> CurveStyle("molt", colour="#0072b2", marker="o").label
        'molt'
    """

    label: str
    colour: str
    marker: str


def curve_styles(labels: Sequence[str]) -> list[CurveStyle]:
    """Return a style for each model; up to 84 models have different pairs of colour and marker.

    A label that no installed font can draw becomes "model 1" and so on.

    Args:
        labels: Labels of the models.
    """
    return [
        CurveStyle(shown(label, f"model {number}"), colour, marker)
        for number, (label, colour, marker) in enumerate(
            zip(labels, cycle(COLOURS), islice(cycle(MARKERS), len(labels)), strict=False), 1
        )
    ]


@contextmanager
def style(texts: Iterable[str]) -> Iterator[None]:
    """Set Matplotlib's style inside the context, for drawing and saving figures.

    Args:
        texts: All texts in the figures. Fonts are chosen that have their letters.
    """
    settings: dict[Any, Any] = {
        "font.family": [FONT, *_fonts("".join(sorted({*"".join(texts)})))],
        "font.size": SIZE,
        "axes.titlesize": SIZE,
        "axes.edgecolor": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "robusttune",  # makes the ids in SVG files reproducible
        "text.parse_math": False,  # a $ in a name must not start a formula
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        "axes.unicode_minus": False,
    }
    with mpl.rc_context(settings):
        yield


def shown(text: str, otherwise: str) -> str:
    """Return a text as one line with escaped control characters, or ``otherwise`` if no installed font can draw it."""
    text = visible(" ".join(text.split()))
    needed = {letter for letter in text if not letter.isspace()}
    available = _letters(font_manager.findfont(FONT))
    if needed <= available:
        return text
    for path in _paths(_fonts("".join(sorted(needed)))):
        available = available | _letters(path)
    return text if needed <= available else otherwise


def wrapped(text: str, width: float) -> str:
    """Wrap a text into lines of about ``width`` inches, but at least 8 letters; long words are broken."""
    letters = int(width / width_of(text) * len(text)) if text else 1
    return "\n".join(textwrap.wrap(text, max(8, letters), break_on_hyphens=False))


def width_of(text: str) -> float:
    """Estimate the width of a line in inches; Chinese, Japanese and Korean letters count twice."""
    return cell_len(text) * LETTER


def panels(columns: int, count: int, width: float, height: float, same_scale: bool = True) -> tuple[Figure, list[Axes]]:
    """Create a figure with a grid of panels.

    Args:
        columns: Most columns of the grid.
        count: Number of panels.
        width: Width of a panel in inches.
        height: Height of a panel in inches.
        same_scale: Flag for panels that share their y axis.

    Returns:
        The figure and the axes of its panels.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(columns * width, 4.5), rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=same_scale).flatten().tolist()
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Add a legend below the panels, in as many columns as fit; the figure becomes higher by the legend's height."""
    width = float(figure.get_figwidth())
    labels = [wrapped(str(handle.get_label()), width - 1) for handle in handles]
    widest = max(width_of(line) for label in labels for line in label.split("\n"))
    columns = min(len(labels), max(1, int(width / (widest + 0.55))))
    lines = max(label.count("\n") + 1 for label in labels)
    rows = -(-len(labels) // columns)
    figure.set_figheight(float(figure.get_figheight()) + rows * lines * LINE + 0.25)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.5)


def _paths(families: Iterable[str]) -> list[str]:
    return [font_manager.findfont(family) for family in families]


@cache
def _fonts(letters: str) -> list[str]:
    """Return installed font families that together have the letters that the default font lacks.

    A family is only taken if it adds letters that the ones before it lack.
    """
    missing = {letter for letter in letters if not letter.isspace()} - _letters(font_manager.findfont(FONT))
    families: list[str] = []
    entries = font_manager.fontManager.ttflist if missing else []
    for entry in sorted(entries, key=lambda entry: ("Sans" not in entry.name, entry.name)):
        if missing and entry.style == "normal" and not re.match("last ?resort", entry.name, re.IGNORECASE):
            found = missing & _letters(entry.fname)
            if found:
                families.append(entry.name)
                missing -= found
    return families


@cache
def _letters(path: str) -> frozenset[str]:
    """Return the letters that a font file has."""
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
