"""All plots of a comparison, as the bytes of their files."""

from __future__ import annotations

import io
import re
from typing import NamedTuple

from robusttune.escaping import visible
from robusttune.report.compare import Comparison
from robusttune.report.plots.calibration import calibration
from robusttune.report.plots.confusion import confusion
from robusttune.report.plots.curves import correlations, missing_rates, severities
from robusttune.report.plots.style import INK, Plot, looks, style

NAMES = ("missing_rates", "image_noise", "text_noise", "calibration", "canonical_correlation", "confusion")


class Drawn(NamedTuple):
    """A plot as it goes to disk.

    Attributes:
        caption: what it shows.
        png: for white pages.
        svg: likewise.
        inline: SVG to be put into HTML, with the colour of its text and no background.
        width: in CSS pixels.
    """

    caption: str
    png: bytes
    svg: str
    inline: str
    width: int


def draw_all(comparison: Comparison) -> dict[str, Drawn]:
    """By name, those for which there is something to draw."""
    labels = [model.label for model in comparison.models]
    with style([*labels, *comparison.models[0].tests[0].class_names]):
        seen = looks(labels)
        plots = (
            missing_rates(comparison, seen),
            severities(comparison, seen, "image"),
            severities(comparison, seen, "text"),
            calibration(comparison, seen),
            correlations(comparison, seen),
            confusion(comparison),
        )
        other = [
            f"{look.label}: {name}"
            for look, name in zip(seen, labels, strict=True)
            if look.label != visible(" ".join(name.split()))
        ]
        key = f" No font of this machine has the names of {'; '.join(other)}." if other else ""
        return {plot.name: _drawn(plot, key) for plot in plots if plot is not None}


def _drawn(plot: Plot, key: str) -> Drawn:
    png, svg = io.BytesIO(), io.StringIO()
    plot.figure.savefig(png, format="png", dpi=150, facecolor="white")
    plot.figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = svg.getvalue()
    white = text.replace("<svg ", '<svg style="background: white" ', 1)
    width = round(plot.figure.get_figwidth() * 96)
    return Drawn(plot.caption + key, png.getvalue(), white, inline(text, plot.name), width)


def inline(svg: str, name: str) -> str:
    """A picture as a part of a page: without a prolog, names of its own, and with the page's colour of text."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace(INK, "currentColor").strip()
