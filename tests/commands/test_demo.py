"""The generated demo data."""

from __future__ import annotations

from pathlib import Path

import pytest

from robusttune.cli import main
from robusttune.commands.demo import DISHES, write_food101
from robusttune.data.sources import Food101


def test_data_are_whole_and_repeat(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        write_food101(tmp_path / name, {"train": 3, "test": 2}, seed=1, size=16)
    table = Food101(str(tmp_path / "a")).read("train")
    assert table is not None
    assert len(table) == 3 * len(DISHES)
    assert not caplog.text
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "food101").mkdir()
    assert main(["demo", "--root", str(tmp_path)]) == 0
    assert "is left as it is" in capsys.readouterr().out
    assert not (tmp_path / "text_encoder").exists()
