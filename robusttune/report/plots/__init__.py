"""The plots of a report."""

from robusttune.report.plots.draw import NAMES, Drawn, draw_all

__all__ = ["NAMES", "Drawn", "draw_all"]
