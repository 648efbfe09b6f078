"""Two processes at half the batch each do what one process does."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import tiny_flags

CONFIG = Path(__file__).parents[2] / "configs" / "food101.yaml"


def run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "robusttune", *arguments], check=True, capture_output=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("subset", [9, 5])
def test_a_rank_whose_last_batch_only_fills_up(food101: Path, text_folder: Path, tmp_path: Path, subset: int) -> None:
    flags = [*tiny_flags(food101, text_folder), f"--data.subset={subset}", "--data.batch_size=4"]
    flags += ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.precision=32-true", f"--run_root={tmp_path}"]
    run(["fit", f"--config={CONFIG}", *flags])
    folder = tmp_path / "food101/0"
    flags = [f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/last.ckpt"]
    run(["test", *flags])
    two = json.loads((folder / "report/test.json").read_text())["conditions"]
    run(["predict", *flags])
    assert len((folder / "report/predictions.csv").read_text().splitlines()) == 1 + subset
    run(["test", *flags, "--trainer.devices=1", "--trainer.strategy=auto"])
    one = json.loads((folder / "report/test.json").read_text())["conditions"]
    for condition, values in one.items():
        assert two[condition] == pytest.approx(values, abs=1e-3)


@pytest.mark.slow
def test_two_processes_equal_one(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """Losses step by step, with an uneven last batch and rows that only fill up, and metrics, to 1e-6.

    In float64, since training blows up the last digit, in which sums in another order differ, a thousandfold in a few
    steps: there are 8 samples a step, and the slope of a square root.
    """
    losses, metrics = {}, {}
    for name, devices, batch_size in (("one", "1", "10"), ("two", "2", "5")):
        fit = [*tiny_flags(food101, text_folder), f"--data.batch_size={batch_size}", "--trainer.log_every_n_steps=1"]
        # 77 training samples: the last step has 7, so one of two ranks has a row that does not count.
        fit += ["--data.val_fraction=0.2", "--trainer.max_epochs=2", "--trainer.precision=64-true"]
        fit += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1"]
        fit += ["--model.fusion.dropout=0", f"--trainer.devices={devices}", "--trainer.strategy=ddp"]
        run(["fit", f"--config={CONFIG}", *fit, f"--name={name}", f"--run_root={tmp_path}"])
        folder = tmp_path / name / "0"
        with (folder / "metrics.csv").open() as file:
            losses[name] = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
        run(["test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/last.ckpt"])
        metrics[name] = json.loads((folder / "report/test.json").read_text())["conditions"]
    assert len(losses["one"]) == 16
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-6)
    for condition, values in metrics["one"].items():
        assert metrics["two"][condition]["loss"] == pytest.approx(values["loss"], rel=1e-6)
        assert metrics["two"][condition]["accuracy"] == pytest.approx(values["accuracy"], abs=1e-6)
