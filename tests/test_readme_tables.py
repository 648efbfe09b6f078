"""The tables and pictures of the pages are those that the published results give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from experiments.records import ROOT, load
from experiments.tables import BLOCK, PAGES, PICTURES, TABLES, filled, source_of, studies
from PIL import Image


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_agree_with_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert filled(text) == text, "run `make tables`"


@pytest.mark.parametrize("name", [name for name, picture in PICTURES.items() if picture.study in studies()])
def test_pictures_are_drawn_from_the_results(name: str) -> None:
    with Image.open(ROOT / ".github" / name) as image:
        assert image.info["Source"] == source_of(PICTURES[name].study), "run `make tables`"


def test_a_picture_without_results_is_not_kept() -> None:
    left = [name for name, picture in PICTURES.items() if picture.study not in studies()]
    assert not [name for name in left if (ROOT / ".github" / name).exists()]


@pytest.mark.parametrize("study", studies())
def test_results_say_how_they_were_made(study: str) -> None:
    results = load(study)
    assert results.command.startswith("python -m experiments.")
    assert "/" not in results.command, "folders of somebody's machine"
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", results.date)
    assert {"python", "torch", "lightning", "robusttune"} <= results.versions.keys()
    assert results.jobs


def test_every_result_is_shown() -> None:
    shown = {TABLES[name].study for page in PAGES for _, name, _ in BLOCK.findall(page.read_text()) if name in TABLES}
    assert set(studies()) == shown
