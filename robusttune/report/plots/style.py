"""How plots look: colours, markers, fonts, legends."""

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
# Okabe and Ito's colours, without yellow, which is pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">", "p", "h")
FONT = "DejaVu Sans"  # comes with matplotlib
SIZE = 9  # points
LETTER, LINE = 0.62 * SIZE / 72, 1.35 * SIZE / 72  # inches that a letter is wide at most on average, and a line high


class Plot(NamedTuple):
    """A figure that is not yet on disk.

    Attributes:
        name: of its files.
        caption: what it shows, in plain text.
        figure: that it is.
    """

    name: str
    caption: str
    figure: Figure


class Look(NamedTuple):
    """How a model is drawn, in every plot alike."""

    label: str
    colour: str
    marker: str


def looks(labels: Sequence[str]) -> list[Look]:
    """One for each model; colour and marker tell it from all others."""
    return [
        Look(shown(label, f"model {number}"), colour, marker)
        for number, (label, colour, marker) in enumerate(
            zip(labels, cycle(COLOURS), islice(cycle(MARKERS), len(labels)), strict=False), 1
        )
    ]


@contextmanager
def style(texts: Iterable[str]) -> Iterator[None]:
    """Draw and save within it: fonts that have the texts' letters, plain axes, text in SVG as text."""
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
        "svg.hashsalt": "robusttune",  # the same report has the same files
        "text.parse_math": False,  # a $ in a name is a $
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        "axes.unicode_minus": False,
    }
    with mpl.rc_context(settings):
        yield


def shown(text: str, otherwise: str) -> str:
    """The text as it can be drawn, or something else where no font of this machine has its letters."""
    text = visible(" ".join(text.split()))
    wanted = {letter for letter in text if not letter.isspace()}
    there = _letters(font_manager.findfont(FONT))
    if wanted <= there:
        return text
    for path in _paths(_fonts("".join(sorted(wanted)))):
        there = there | _letters(path)
    return text if wanted <= there else otherwise


def wrapped(text: str, width: float) -> str:
    """The text in lines that are at most so many inches wide, long words broken."""
    letters = int(width / width_of(text) * len(text)) if text else 1
    return "\n".join(textwrap.wrap(text, max(8, letters), break_on_hyphens=False))


def width_of(text: str) -> float:
    """Of a line in inches, about; letters of Chinese, Japanese and Korean are as wide as two."""
    return cell_len(text) * LETTER


def panels(columns: int, count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels with a shared scale, each so many inches wide and high."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(columns * width, 4.5), rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten().tolist()
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Below the panels, in as many columns as there is room for; the figure grows by its height."""
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
    """Installed families that have the letters that the usual font lacks, as few as it takes."""
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
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
