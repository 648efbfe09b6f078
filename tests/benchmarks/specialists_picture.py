"""The picture of `specialists.py`: accuracy in each transfer and condition, a marker a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.lines import Line2D

from robusttune.report.plots.style import GREY, legend, looks, panels, style

Interval = tuple[float, float, float]  # of an accuracy, and what it lies between


def draw(
    path: Path,
    found: Mapping[str, Mapping[str, Interval]],
    transfers: Sequence[tuple[str, str]],
    conditions: Sequence[str],
) -> None:
    """Write a PNG.

    Args:
        path: of the file.
        found: by model, and by cell ``<trained on> <tested on> <condition>``; a specialist has some of them alone.
        transfers: pairs of styles, a panel each.
        conditions: of each panel, from left to right.
    """
    with style(found):
        seen = looks(list(found))
        figure, axes = panels(2, len(transfers), 4.2, 2.3)
        for axis, (trained, tested) in zip(axes, transfers, strict=True):
            axis.set_title(f"trained on {trained}, tested on {tested}", loc="left")
            axis.set_xticks(range(len(conditions)), [name.replace("_", " ") for name in conditions])
            axis.set_xlim(-0.5, len(conditions) - 0.5)
            axis.grid(axis="y", color=GREY, alpha=0.25)
            for number, (look, cells) in enumerate(zip(seen, found.values(), strict=True)):
                offset = (number - (len(seen) - 1) / 2) * 0.8 / len(seen)
                for place, condition in enumerate(conditions):
                    if f"{trained} {tested} {condition}" in cells:
                        value, low, high = cells[f"{trained} {tested} {condition}"]
                        axis.vlines(place + offset, low, high, color=look.colour, alpha=0.5)
                        axis.plot(place + offset, value, look.marker, color=look.colour, markersize=5)
        axes[0].set_ylabel("accuracy")
        legend(figure, [Line2D([], [], color=one.colour, marker=one.marker, ls="", label=one.label) for one in seen])
        figure.savefig(path, dpi=150, facecolor="white")
