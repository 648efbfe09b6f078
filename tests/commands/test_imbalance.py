"""Imbalanced data through the command line: notes, a fit with a balanced sampler, metrics, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import tiny_flags, write_table
from test_configs import CONFIGS

from robusttune.cli import main

NOTE = "imbalanced, from 40 samples of 'soup' to 4 samples of 'pie': try data.training.balance or model.balance"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return flags of tables of texts, with 40 samples of one class and 4 of another in training."""
    folder = tmp_path_factory.mktemp("tables")
    rows = [{"text": f"{label} {i}", "label": label} for label, n in (("soup", 40), ("pie", 4)) for i in range(n)]
    train, few = write_table(folder, "train", rows), write_table(folder, "few", rows[36:42])
    flags = {"train": train, "val": few, "test": few, "image_column": "null"}
    return [f"--data.source.{name}={value}" for name, value in flags.items()]


def run(source: list[str], text_folder: Path, tmp_path: Path, *flags: str) -> int:
    """Run a fit on the tables and return its exit status."""
    tiny = [flag for flag in tiny_flags(Path("none"), text_folder) if "workers" not in flag]
    config = [f"--config={CONFIGS}/table.yaml", *tiny, *source, f"--run_root={tmp_path}", "--data.loader.workers=0"]
    return main(["fit", *config, *flags])


def test_verify_notes_imbalance(source: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = [f"--config={CONFIGS}/table.yaml", *source, "--text_encoder.name=robusttune:demo_clip"]
    main(["data", "verify", *config])
    assert NOTE in " ".join(capsys.readouterr().out.split())
    main(["data", "verify", *config, "--data.training.balance=balanced"])
    assert "imbalanced" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_balanced_fit(
    source: list[str], text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It selects the checkpoint by the balanced accuracy, resumes, and its test reports the recall of each class."""
    own = ["--data.training.balance=balanced", "--model.balance.focal=1", "--monitor=val/mean/balanced_accuracy"]
    assert run(source, text_folder, tmp_path, *own) == 0
    assert "imbalanced" not in capsys.readouterr().err
    folder = tmp_path / "table/0"
    last = f"--ckpt_path={folder}/checkpoints/last.ckpt"
    assert main(["fit", f"--config={folder}/config.yaml", last, "--trainer.max_epochs=2"]) == 0
    assert main(["test", f"--config={folder}/config.yaml", last]) == 0
    found: dict[str, Any] = json.loads((folder / "report/test.json").read_text())
    recall = found["class_recall"]["complete"]
    assert {*recall} == {"soup", "pie"}
    values = found["conditions"]["complete"]
    assert values["balanced_accuracy"] == pytest.approx((recall["soup"] + recall["pie"]) / 2)
    low, high = found["intervals"]["complete"]["balanced_accuracy"]
    assert low <= values["balanced_accuracy"] <= high
    assert main(["test", f"--config={folder}/config.yaml", last, "--model.balance.post_hoc=1"]) == 0
    adjusted = json.loads((folder / "report/test.json").read_text())["conditions"]["complete"]
    assert adjusted["loss"] != values["loss"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.balance.weights=positive"], "positive is for data with several labels a sample: use inverse"),
        (
            ["--model.balance.weights=inverse", "--data.training.balance=balanced"],
            "data.training.balance and model.balance.weights would correct the class frequencies twice: set one",
        ),
        (["--model.balance.focal=-1"], "model.balance.focal is -1.0: give a number of at least 0"),
    ],
)
def test_refusals_are_one_sentence_and_leave_no_run(
    flags: list[str], message: str, source: list[str], text_folder: Path, tmp_path: Path, capfd: Any
) -> None:
    assert run(source, text_folder, tmp_path, *flags) == 1
    lines = capfd.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert sum("robusttune: error" in line for line in lines) == 1
    assert not list(tmp_path.rglob("*.ckpt"))
