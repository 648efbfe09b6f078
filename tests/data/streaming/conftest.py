"""Fixtures for streamed data sets."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def prepared_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the files that the `datasets` library prepares in the test's temporary folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "prepared")
