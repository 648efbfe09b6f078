"""Line plots: the metric over missing rates and noise severities, and the canonical correlation by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from robusttune.corruption.grammar import COMPLETE, MISSING_TYPES
from robusttune.escaping import visible
from robusttune.report.compare import Comparison
from robusttune.report.conditions import parsed
from robusttune.report.estimates import Estimate
from robusttune.report.plots.style import GREY, CurveStyle, Plot, legend, panels
from robusttune.report.sentences import heading

BANDS = 6  # most models with an interval band each; more bands would hide each other


def missing_rates(comparison: Comparison, styles: list[CurveStyle]) -> Plot | None:
    """Draw the metric over the missing rate, in a panel per missing modality.

    Args:
        comparison: Comparison of the models.
        styles: Style of each model.

    Returns:
        The plot, or None if no run was tested at two or more missing rates.
    """
    tests = [tested for model in comparison.models for tested in model.tests]
    kinds = [kind for kind in MISSING_TYPES if any(len(tested.curves.get(kind, {})) > 1 for tested in tests)]
    if not kinds:
        return None
    figure, axes = panels(3, len(kinds), width=3.4, height=2.9)
    for panel, kind in zip(axes, kinds, strict=True):
        curves = [{r: c for t in model.tests for r, c in t.curves.get(kind, {}).items()} for model in comparison.models]
        _lines(panel, comparison, styles, curves)
        panel.set_title({"both": "either image or text is missing"}.get(kind, f"{kind} is missing"))
        panel.set_xlabel("missing rate")
        panel.set_xticks(sorted({rate for curve in curves for rate in curve}), minor=True)
        panel.set_xlim(-0.04, 1.04)
    axes[0].set_ylabel(heading(comparison.metric))
    legend(figure, handles(styles))
    return Plot("missing_rates", f"{_metric(comparison)} against the missing rate. {_bands(comparison)}", figure)


def severities(comparison: Comparison, styles: list[CurveStyle], modality: str) -> Plot | None:
    """Draw the metric over the severity of noise, in a panel per kind of noise; severity 0 is the complete sample.

    Args:
        comparison: Comparison of the models.
        styles: Style of each model.
        modality: Noisy modality, ``image`` or ``text``.

    Returns:
        The plot, or None if no run was tested with noise on this modality.
    """
    levels = {name: c.noise_alone for name in comparison.conditions if (c := parsed(name)) is not None}
    noises = {name: noise for name, noise in levels.items() if noise is not None and noise.modality == modality}
    kinds = [*dict.fromkeys(noise.kind for noise in noises.values())]
    if not kinds:
        return None
    figure, axes = panels(4, len(kinds), width=2.5, height=2.4)
    for panel, kind in zip(axes, kinds, strict=True):
        curve = {0.0: COMPLETE} | {float(n.severity): name for name, n in noises.items() if n.kind == kind}
        _lines(panel, comparison, styles, [curve] * len(comparison.models))
        panel.set_title(visible(kind.replace("_", " ")))
        panel.set_xticks(range(6))
        panel.set_xlim(-0.25, 5.25)
        panel.set_xlabel("severity (0: complete)")
    for panel in axes[::4]:
        panel.set_ylabel(heading(comparison.metric))
    legend(figure, handles(styles))
    caption = f"{_metric(comparison)} against the severity of noise on {modality}s. {_bands(comparison)}"
    return Plot(f"{modality}_noise", caption, figure)


def correlations(comparison: Comparison, styles: list[CurveStyle]) -> Plot | None:
    """Draw the canonical correlation of image and text by layer, as a mean over seeds, for true and shuffled pairs.

    Args:
        comparison: Comparison of the models.
        styles: Style of each model.

    Returns:
        The plot, or None if no test has canonical correlations.
    """
    known = [
        (style, [tested.correlation for tested in model.tests if tested.correlation is not None])
        for style, model in zip(styles, comparison.models, strict=True)
    ]
    known = [(style, of_runs) for style, of_runs in known if of_runs]
    if not known:
        return None
    figure, (panel,) = panels(1, 1, width=5.5, height=3)
    for style, of_runs in known:
        for part, line in ((0, "-"), (1, ":")):
            values = [mean(layer) for layer in zip(*(pair[part] for pair in of_runs), strict=False)]
            marker = style.marker if part == 0 else ""
            panel.plot(range(1, len(values) + 1), values, line, color=style.colour, marker=marker, markersize=5)
    layers = max(len(pair[0]) for _, of_runs in known for pair in of_runs)
    panel.set_xticks(range(1, layers + 1))
    panel.set_xlabel("layer")
    panel.set_ylabel("canonical correlation")
    panel.set_ylim(bottom=min(0, panel.get_ylim()[0]))
    shuffled = Line2D([], [], color=GREY, linestyle=":", label="shuffled pairs")
    legend(figure, [*handles([style for style, _ in known]), shuffled])
    return Plot(
        "canonical_correlation", "Canonical correlation of image and text by layer; dotted: of shuffled pairs.", figure
    )


def _lines(
    panel: Axes, comparison: Comparison, styles: list[CurveStyle], curves: Sequence[Mapping[float, str]]
) -> None:
    """Draw a line per model with its known estimates, and bands unless there are too many models.

    Args:
        panel: Axes to draw into.
        comparison: Comparison of the models.
        styles: Style of each model.
        curves: Condition by position on the x axis, for each model.
    """
    for model, style, curve in zip(comparison.models, styles, curves, strict=True):
        known = [(x, e) for x, name in sorted(curve.items()) if (e := comparison.estimate(model, name)) is not None]
        draw_line(panel, style, known, band=len(styles) <= BANDS)
    panel.grid(color=GREY, alpha=0.25, linewidth=0.6)


def draw_line(panel: Axes, style: CurveStyle, points: Sequence[tuple[float, Estimate]], band: bool) -> None:
    """Draw the line of a model.

    Args:
        panel: Axes to draw into.
        style: Style of the model.
        points: Position on the x axis and estimate of each point, sorted; without any nothing is drawn.
        band: Flag for a band with the interval of each estimate.
    """
    if not points:
        return
    xs = [x for x, _ in points]
    values = [estimate.mean for _, estimate in points]
    panel.plot(xs, values, color=style.colour, marker=style.marker, markersize=4.5, linewidth=1.3)
    if band:
        low, high = zip(*(estimate.band for _, estimate in points), strict=True)
        panel.fill_between(xs, low, high, color=style.colour, alpha=0.15, linewidth=0)


def handles(styles: Sequence[CurveStyle]) -> list[Line2D]:
    """Return the entries of a legend, one per model."""
    return [
        Line2D([], [], color=style.colour, marker=style.marker, markersize=5, linewidth=1.3, label=style.label)
        for style in styles
    ]


def _metric(comparison: Comparison) -> str:
    name = heading(comparison.metric)
    return name[0].upper() + name[1:]


def _bands(comparison: Comparison) -> str:
    if len(comparison.models) > BANDS:
        return "Intervals are in the table."
    return "Bands: standard deviation over seeds; of one seed, the 95 % interval over samples."
