"""Line plots of a protocol: a metric over shots or missing rates, in several panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from robusttune.escaping import visible
from robusttune.protocols.measured import Measured
from robusttune.report.estimates import Estimate
from robusttune.report.plots import Drawn, rendered
from robusttune.report.plots.curves import BANDS as MOST_BANDS
from robusttune.report.plots.curves import draw_line, handles
from robusttune.report.plots.style import GREY, CurveStyle, Plot, curve_styles, legend, panels, style, wrapped

BANDS = f"Bands: standard deviation over seeds, for at most {MOST_BANDS} methods."
WIDTH, HEIGHT = 3.2, 2.7  # of a panel, in inches


class Panel(NamedTuple):
    """A panel of a plot.

    Attributes:
        title: Title of the panel, of one line or more.
        label: Label of the y axis.
        lines: Values by position on the x axis, for each method. A method with a single position is drawn as a
            horizontal line if others have several: it does not depend on x.

    Example:
        >>> Panel("DTD", "accuracy (%)", {"MMRL": {1: Measured({"1": 50.0}), 16: Measured({"1": 70.0})}}).title
        'DTD'
    """

    title: str
    label: str
    lines: Mapping[str, Mapping[float, Measured]]


def draw_panels(
    name: str, caption: str, panel_list: Sequence[Panel], x_label: str, columns: int = 4, logarithmic: bool = False
) -> Drawn | None:
    """Draw the panels.

    Args:
        name: Name of the files of the plot.
        caption: Explanation in plain text.
        panel_list: Panels in order.
        x_label: Label of the x axis.
        columns: Most panels beside each other.
        logarithmic: Flag for an x axis on which each doubling has the same length.

    Returns:
        The plot, or None if no method has values at two or more positions.
    """
    methods = [*dict.fromkeys(method for panel in panel_list for method in panel.lines)]
    if not any(len(_known(line)) > 1 for panel in panel_list for line in panel.lines.values()):
        return None
    same_label = len({panel.label for panel in panel_list}) == 1
    texts = [*methods, *(text for panel in panel_list for text in (panel.title, panel.label))]
    with style([*texts, caption, x_label]):
        styles = dict(zip(methods, curve_styles(methods), strict=True))
        figure, axes = panels(columns, len(panel_list), WIDTH, HEIGHT, same_scale=False)
        for number, (axis, panel) in enumerate(zip(axes, panel_list, strict=True)):
            _draw(axis, panel, styles, logarithmic)
            axis.set_xlabel(x_label)
            if not same_label or number % columns == 0:
                axis.set_ylabel(visible(panel.label))
        entries = handles([*styles.values()])
        for entry, method in zip(entries, methods, strict=True):
            if all(_is_flat(panel, method) for panel in panel_list):
                entry.set(linestyle="--", marker="")
        legend(figure, entries)
        return rendered(Plot(name, caption, figure), [*styles.values()], methods)


def _draw(axis: Axes, panel: Panel, styles: Mapping[str, CurveStyle], logarithmic: bool) -> None:
    """Draw the lines of a panel."""
    positions = sorted({x for line in panel.lines.values() for x in line})
    if logarithmic and positions[0] > 0:
        axis.set_xscale("log", base=2)
    for method, line in panel.lines.items():
        points = _known(line)
        if _is_flat(panel, method) and points:
            axis.axhline(points[0][1].mean, color=styles[method].colour, linestyle="--", linewidth=1.1)
        else:
            draw_line(axis, styles[method], points, band=len(styles) <= MOST_BANDS)
    axis.xaxis.set_major_locator(FixedLocator(positions))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(positions, [f"{x:g}" for x in positions])
    axis.set_title("\n".join(wrapped(visible(line), WIDTH - 0.4) for line in panel.title.split("\n")))
    axis.grid(color=GREY, alpha=0.25, linewidth=0.6)


def _is_flat(panel: Panel, method: str) -> bool:
    """Return whether a method has one position only while others have several."""
    return len(panel.lines.get(method, {})) < 2 and any(len(line) > 1 for line in panel.lines.values())


def _known(line: Mapping[float, Measured]) -> list[tuple[float, Estimate]]:
    """Return the known estimates of a line, sorted by position."""
    return [(x, estimate) for x, measured in sorted(line.items()) if (estimate := measured.estimate) is not None]
