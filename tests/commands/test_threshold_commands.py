"""Thresholds of multi-label data from a fit to tests, predictions in Python and in tables, and their setting."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest
from fakes import tiny_flags, write_table

import robusttune
from robusttune.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = ["soup", "cake", "pie"]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Texts that name a sample's labels more often than other classes, but no label is ever likely."""
    random = Random(0)
    found = []
    for number in range(80):
        label = [name for name in CLASSES if random.random() < 0.2]
        named = [name for name in CLASSES if (name in label) != (random.random() < 0.3)]
        found.append({"id": f"{number:02}", "text": f"a photo {' and '.join(named)}", "label": label})
    return found


@pytest.fixture(scope="module")
def run(rows: list[dict[str, Any]], text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a calibrated fit of logistic regressions."""
    folder = tmp_path_factory.mktemp("thresholds")
    table = write_table(folder, "table", rows)
    flags = [f"--data.source.{split}={table}" for split in ("train", "val", "test")]
    flags += [*tiny_flags(folder, text_folder), "--data.source.image_column=null", "--data.source.multilabel=true"]
    flags = [flag for flag in flags if not flag.startswith("--model.fusion.")]
    flags += ["--data.source.id_column=id", "--trainer.precision=32-true", "--model.calibrate=true"]
    configs = [f"--config={CONFIGS}/{name}.yaml" for name in ("table", "fusion/linear")]
    assert main(["fit", *configs, *flags, f"--run_root={folder}"]) == 0
    return folder / "linear/0"


def scores_of(run: Path, *flags: str) -> dict[str, float]:
    assert main(["test", f"--ckpt_path={run}", *flags]) == 0
    found: dict[str, float] = json.loads((run / "report/test.json").read_text())["conditions"]["complete"]
    return found


def test_a_test_counts_the_classes_that_thresholds_predict(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are fitted to these very samples, so F1 is higher than with 0.5, which can still be asked for."""
    caplog.set_level(logging.INFO)
    found = scores_of(run)
    assert "a class is predicted from a probability that validation has fitted for its F1: both" in caplog.text
    plain = scores_of(run, "--model.threshold=0.5")
    assert "a class is predicted from a probability of 0.5" in caplog.text
    assert found["f1_macro"] > plain["f1_macro"] + 0.01
    for name in ("loss", "brier", "auroc", "calibration_error"):
        assert found[name] == plain[name]


def test_predictions_are_those_of_the_test(run: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    scores_of(run)
    table = pq.read_table(run / "report/test.parquet").to_pylist()
    expected = {row["id"]: row["prediction"] for row in table if row["condition"] == "complete"}
    model = robusttune.load(run)
    found = model.predict(texts=[row["text"] for row in rows])
    assert {row["id"]: list(each.labels) for row, each in zip(rows, found, strict=True)} == expected
    given = write_table(tmp_path, "given", rows)
    flags = ["--data.source.image_column=null", "--data.source.id_column=id", "--trainer.accelerator=cpu"]
    assert main(["predict", f"--ckpt_path={run}", f"--input={given}", *flags, f"--out={tmp_path}/out"]) == 0
    written = pq.read_table(tmp_path / "out/parts").to_pylist()
    assert {row["id"]: row["prediction"] for row in written} == expected
    assert model.evaluate(rows).metrics["complete"]["f1_macro"] == pytest.approx(scores_of(run)["f1_macro"])
    model.save_pretrained(tmp_path / "standalone")
    again = robusttune.load(tmp_path / "standalone").predict(texts=[row["text"] for row in rows])
    assert [each.labels for each in again] == [each.labels for each in found]


@pytest.mark.parametrize("value", ["0", "1.5"])
def test_an_impossible_threshold_is_refused(value: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", f"--ckpt_path={run}", f"--model.threshold={value}"]) == 1
    assert "give a probability in (0, 1), or fitted" in capsys.readouterr().err
