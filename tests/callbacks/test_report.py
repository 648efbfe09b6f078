"""The report of conditions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from rich.console import Console

from robusttune.callbacks.report import as_table, by_condition, write_report

METRICS = {"test/complete/accuracy": 0.5, "test/complete/loss": 1.25, "test/mean/accuracy": 0.25, "train/loss": 9.0}


def test_keys_become_rows() -> None:
    values = by_condition(METRICS, "test")
    assert values == {"complete": {"accuracy": 0.5, "loss": 1.25}, "mean": {"accuracy": 0.25}}
    console = Console(record=True, width=80)
    console.print(as_table({"complete": {"accuracy": 0.5}, "mean": {"accuracy": 0.25}}, "title"))
    text = console.export_text()
    assert "0.5000" in text
    assert "0.2500" in text


def test_files_say_the_same(tmp_path: Path) -> None:
    values = {"complete": {"accuracy": 0.5}, "mean": {"accuracy": 0.25}}
    write_report(tmp_path / "report" / "test", values, "best.ckpt")
    assert json.loads((tmp_path / "report/test.json").read_text()) == {"checkpoint": "best.ckpt", "conditions": values}
    with (tmp_path / "report/test.csv").open() as file:
        assert list(csv.reader(file)) == [["condition", "accuracy"], ["complete", "0.5"], ["mean", "0.25"]]
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"test.json", "test.csv"}
