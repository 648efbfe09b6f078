"""Plots of a report, drawn with Matplotlib."""

from robusttune.report.plots.draw import NAMES, Drawn, draw_all

__all__ = ["NAMES", "Drawn", "draw_all"]
