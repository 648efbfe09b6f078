"""Compare finished runs: tables, differences with confidence intervals, and plots."""

from robusttune.report.document import Document, report_on
from robusttune.report.files import write

__all__ = ["Document", "report_on", "write"]
