"""The walk-through runs in a Jupyter kernel, and its output is readable there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("walkthrough.py")


def cells() -> list[tuple[bool, str]]:
    """Return the cells of the script: whether it is text, and its source."""
    parts = re.split(r"^# %%(.*)\n", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [("markdown" in kind, source.strip()) for kind, source in zip(parts[::2], parts[1::2], strict=True)]


def test_text_and_code_alternate() -> None:
    assert sum(is_text for is_text, _ in cells()) >= 5
    assert all(source.startswith("# ") for is_text, source in cells() if is_text)


@pytest.mark.slow
def test_it_runs_in_a_kernel(tmp_path: Path) -> None:
    """Tables and progress are shown without widgets, and no control characters are left."""
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    code = [source for is_text, source in cells() if not is_text]
    notebook = new_notebook(cells=[new_code_cell(source) for source in code])
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.outputs]
    text = "".join(output.get("text", "") for output in shown)
    assert "from the text alone" in text
    assert "of the labels are right" in text
    assert "\x1b" not in text
    assert "ipywidgets" not in str(shown)
    assert "Epoch 1: 100%" in text
    tables = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert len([table for table in tables if "no_image" in table]) == 2
