"""A report as a self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from robusttune.escaping import visible
from robusttune.report.document import Document


def as_html(document: Document) -> str:
    """Return the report as one HTML page with inline styles and plots; all names in it are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # Markup is not a name
    )
    return environment.get_template("page.html.jinja").render(document=document) + "\n"
