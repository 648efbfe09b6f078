"""Drawing of all plots of a comparison, as the contents of PNG and SVG files."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import NamedTuple

from robusttune.escaping import visible
from robusttune.report.compare import Comparison
from robusttune.report.plots.calibration import calibration
from robusttune.report.plots.confusion import confusion
from robusttune.report.plots.curves import correlations, missing_rates, severities
from robusttune.report.plots.style import INK, CurveStyle, Plot, curve_styles, style


class Drawn(NamedTuple):
    """A plot in its file formats.

    Attributes:
        caption: Explanation in plain text.
        png: Content of the PNG file, with a white background.
        svg: Content of the SVG file, with a white background.
        inline: SVG to embed into HTML, with the page's text colour and without background.
        width: Width in CSS pixels.
    """

    caption: str
    png: bytes
    svg: str
    inline: str
    width: int


def draw_all(comparison: Comparison) -> dict[str, Drawn]:
    """Draw all plots for which the comparison has values, and return them by name."""
    labels = [model.label for model in comparison.models]
    with style([*labels, *comparison.models[0].tests[0].class_names]):
        model_styles = curve_styles(labels)
        plots = (
            missing_rates(comparison, model_styles),
            severities(comparison, model_styles, "image"),
            severities(comparison, model_styles, "text"),
            calibration(comparison, model_styles),
            correlations(comparison, model_styles),
            confusion(comparison),
        )
        return {plot.name: rendered(plot, model_styles, labels) for plot in plots if plot is not None}


def rendered(plot: Plot, styles: Sequence[CurveStyle], labels: Sequence[str]) -> Drawn:
    """Render a plot inside the context of `style`.

    Args:
        plot: Plot to render.
        styles: Styles of the models in the plot.
        labels: Labels of these models. The caption names those that no font can draw.
    """
    replaced = [
        f"{curve.label}: {name}"
        for curve, name in zip(styles, labels, strict=True)
        if curve.label != visible(" ".join(name.split()))
    ]
    key = f" No font of this machine has the names of {'; '.join(replaced)}." if replaced else ""
    png, svg = io.BytesIO(), io.StringIO()
    plot.figure.savefig(png, format="png", dpi=150, facecolor="white")
    plot.figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = svg.getvalue()
    white = text.replace("<svg ", '<svg style="background: white" ', 1)
    width = round(plot.figure.get_figwidth() * 96)
    return Drawn(plot.caption + key, png.getvalue(), white, inline(text, plot.name), width)


def inline(svg: str, name: str) -> str:
    """Convert an SVG file to an element that can be embedded into HTML.

    The prolog, metadata and namespaces are removed. Ids get a prefix, so that they are unique on the page. The colour
    of the text becomes that of the page.

    Args:
        svg: Content of an SVG file by Matplotlib.
        name: Prefix of the ids.
    """
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace(INK, "currentColor").strip()
