"""Temperatures through the command line: fitted in validation, kept in the checkpoint, used ever after."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fakes import tiny_flags, write_image, write_table

from robusttune.checkpoint_file import read_checkpoint, seal
from robusttune.cli import main
from robusttune.tasks import FusionTask

CONFIG = Path(__file__).parents[2] / "configs" / "table.yaml"
WORDS = {"red": "soup", "lime": "cake and pie", "blue": "tacos"}
CLASSES = [*WORDS]
CONDITIONS = "--data.evaluation.conditions=[complete,no_image,no_text,no_image+no_text]"


@pytest.fixture(scope="module")
def flags(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a fit to colours and words, which are sometimes those of another class: words more often than colours."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for colour in CLASSES:
        write_image(folder / f"{colour}.png", colour=colour)
    flags = [*tiny_flags(Path("none"), text_folder), "--trainer.precision=32-true", "--trainer.max_epochs=5"]
    for split, size in {"train": 120, "val": 60, "test": 60}.items():
        rows = []
        for number in range(size):
            label = CLASSES[number % 3]
            colour, other = (label if rng.random() < sure else CLASSES[rng.integers(3)] for sure in (0.9, 0.7))
            rows.append({"image": f"{colour}.png", "text": WORDS[other], "label": label})
        flags.append(f"--data.source.{split}={write_table(folder, split, rows)}")
    return [*flags, "--model.optimizer.lr=0.01"]


@pytest.fixture(scope="module")
def run(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit with calibration."""
    root = tmp_path_factory.mktemp("runs")
    assert main(["fit", f"--config={CONFIG}", *flags, "--model.calibrate=true", f"--run_root={root}"]) == 0
    return root / "table/0"


def given(run: Path, folder: Path, temperatures: list[float]) -> Path:
    """The run with other temperatures."""
    folder = shutil.copytree(run, folder)
    checkpoint = read_checkpoint(folder / "checkpoints/last.ckpt")
    checkpoint["state_dict"]["classifier.temperatures.values"] = torch.tensor(temperatures)
    seal(checkpoint)
    torch.save(checkpoint, folder / "checkpoints/last.ckpt")
    return folder


def command(verb: str, run: Path, *more: str) -> list[str]:
    return [verb, f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/last.ckpt", *more]


def report_of(verb: str, run: Path, *more: str) -> dict[str, dict[str, float]]:
    assert main(command(verb, run, CONDITIONS, *more)) == 0
    found: dict[str, Any] = json.loads((run / f"report/{verb}.json").read_text())
    return found["conditions"]


def temperatures_of(run: Path) -> list[float]:
    found: list[float] = read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"][
        "classifier.temperatures.values"
    ].tolist()
    return found


def test_without_calibration_they_are_one(flags: list[str], tmp_path: Path) -> None:
    assert main(["fit", f"--config={CONFIG}", *flags, "--trainer.max_epochs=1", f"--run_root={tmp_path}"]) == 0
    assert temperatures_of(tmp_path / "table/0") == [1.0] * 4


def test_what_is_fitted_makes_the_loss_of_validation_least(run: Path, tmp_path: Path) -> None:
    """Of each of the patterns that its conditions show; the checkpoint keeps it."""
    *fitted, nothing = temperatures_of(run)
    assert nothing == 1
    assert len({*fitted, 1.0}) == 4
    task = FusionTask.load_from_checkpoint(run / "checkpoints/last.ckpt")
    assert task.calibrate
    assert task.classifier.temperatures.values.tolist() == [*fitted, 1]
    best = report_of("validate", run)
    for factor in (0.8, 1.25):
        other = given(run, tmp_path / str(factor), [*(factor * value for value in fitted), 1.0])
        for condition, values in report_of("validate", other).items():
            same = condition == "no_image+no_text"
            assert same == (best[condition]["loss"] == values["loss"]), condition
            assert best[condition]["loss"] <= values["loss"]


GIVEN = {"both": 2.0, "image": 0.5, "text": 3.0}


@pytest.fixture(scope="module")
def cold_and_warm(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run with temperatures of 1, and with others."""
    root = tmp_path_factory.mktemp("given")
    return given(run, root / "cold", [1.0] * 4), given(run, root / "warm", [*GIVEN.values(), 1.0])


def test_probabilities_change_and_answers_do_not(cold_and_warm: tuple[Path, Path]) -> None:
    """Where nothing is shown, the answer stays the frequency of each class in training."""
    cold, warm = (report_of("test", run) for run in cold_and_warm)
    for condition in ("complete", "no_image", "no_text"):
        assert warm[condition]["accuracy"] == cold[condition]["accuracy"]
        assert abs(warm[condition]["loss"] - cold[condition]["loss"]) > 1e-3
    assert warm["no_image+no_text"] == cold["no_image+no_text"]
    assert warm["no_image+no_text"]["loss"] == pytest.approx(np.log(3))  # classes are as frequent


@pytest.mark.slow
def test_the_flag_matters_to_a_fit_alone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tests with or without it are the same; to go on otherwise than a fit began is refused."""
    assert report_of("test", run, "--model.calibrate=false") == report_of("test", run)
    capsys.readouterr()
    assert main(command("fit", run, "--model.calibrate=false", f"--run_root={tmp_path}")) == 1
    assert "model.calibrate False, not True" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", GIVEN)
def test_predictions_are_divided_by_what_is_present(
    cold_and_warm: tuple[Path, Path], flags: list[str], tmp_path: Path, pattern: str
) -> None:
    """Softmax of z / T is the softmax of z to the power of 1 / T, anew."""
    (table,) = (Path(flag.partition("=")[2]) for flag in flags if flag.startswith("--data.source.test="))
    kept = ["image", "text"] if pattern == "both" else [pattern]
    rows = [{name: row[name] for name in kept} for row in map(json.loads, table.read_text().splitlines())]
    columns = [f"--data.source.{name}_column=null" for name in ("image", "text") if name not in kept]
    shown = write_table(tmp_path, "shown", rows)

    def probabilities(run: Path) -> np.ndarray:
        predict = ["predict", f"--ckpt_path={run}/checkpoints/last.ckpt", f"--input={shown}", *columns]
        predict += [f"--data.source.image_root={table.parent}", f"--out={tmp_path}/{run.name}"]
        assert main([*predict, "--data.loader.workers=0", "--trainer.accelerator=cpu"]) == 0
        found = pq.read_table(tmp_path / run.name / "parts")
        return np.stack([found[f"p_{name}"].to_numpy() for name in CLASSES], 1)

    cold, warm = map(probabilities, cold_and_warm)
    power = cold ** (1 / GIVEN[pattern])
    assert warm == pytest.approx(power / power.sum(1, keepdims=True), abs=1e-3)
    assert abs(warm - cold).max() > 0.01
