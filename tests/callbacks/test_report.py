"""The report of conditions."""

from __future__ import annotations

import pytest
from rich.console import Console

from robusttune.callbacks.report import as_table, by_condition, with_bayes_accuracy
from robusttune.callbacks.report_files import condition_rows

METRICS = {"complete/accuracy": 0.5, "complete/loss": 1.25, "mean/accuracy": 0.25}
LEAD = {"complete": (0.41, 0.592)}


def test_keys_become_rows() -> None:
    values = by_condition(METRICS)
    assert values == {"complete": {"accuracy": 0.5, "loss": 1.25}, "mean": {"accuracy": 0.25}}
    console = Console(record=True, width=80)
    console.print(
        as_table(
            {"complete": {"accuracy": 0.5}, "no_text": {"accuracy": 0.1}, "mean": {"accuracy": 0.25}},
            LEAD,
            "accuracy",
            "",
        )
    )
    text = console.export_text()
    assert "0.5000" in text
    assert "0.2500" in text
    assert "0.410-0.592" in text


def test_share_of_the_best_possible() -> None:
    values: dict[str, dict[str, float | None]]
    values = {"complete": {"accuracy": 0.45, "loss": 1.0}, "no_text": {"accuracy": 0.3}, "mean": {"accuracy": 0.375}}
    found = with_bayes_accuracy(values, {"complete": 0.9, "no_text": 0.4})
    assert found["complete"] == {"accuracy": 0.45, "bayes_accuracy": 0.9, "bayes_fraction": 0.5, "loss": 1.0}
    assert found["no_text"]["bayes_fraction"] == 0.3 / 0.4
    assert found["mean"]["bayes_fraction"] == pytest.approx(0.375 / 0.65)
    console = Console(record=True, width=120)
    console.print(as_table(found, {}, "accuracy", "title"))
    assert "Bayes accuracy" in console.export_text()


def test_a_best_that_is_unknown_under_some_is_in_the_files_alone() -> None:
    values: dict[str, dict[str, float | None]]
    values = {"complete": {"accuracy": 0.5}, "noise": {"accuracy": 0.5}, "mean": {"accuracy": 0.5}}
    assert with_bayes_accuracy(values, {"complete": None, "noise": None}) == values
    found = with_bayes_accuracy(values, {"complete": 1.0, "noise": None})
    assert [row["bayes_fraction"] for row in found.values()] == [0.5, None, None]
    console = Console(record=True, width=120)
    console.print(as_table(found, {}, "accuracy", "title"))
    assert "Bayes accuracy" not in console.export_text()
    assert [row["bayes_accuracy"] for row in condition_rows(found)] == [1.0, None, None]
