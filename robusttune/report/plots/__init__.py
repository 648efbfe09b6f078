"""Plots of a report, drawn with Matplotlib."""

from robusttune.report.plots.draw import Drawn, draw_all, rendered

__all__ = ["Drawn", "draw_all", "rendered"]
