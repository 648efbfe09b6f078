"""Fits that are compiled or checkpointed, or that go on without: the same metrics, and checkpoints that fit both."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import mmrl_flags, tiny_flags
from running import LONG, compiling_with

from robusttune.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
BOTH = ["--model.compile=true", "--model.checkpoint_activations=true"]
NEITHER = ["--model.compile=false", "--model.checkpoint_activations=false"]


@pytest.fixture(params=LONG)
def compiler(request: pytest.FixtureRequest) -> Iterator[None]:
    with compiling_with(request.param):
        yield


def losses(folder: Path) -> list[float]:
    """What each step logged."""
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def results_of(folder: Path, *flags: str) -> dict[str, float]:
    """What a test of the last checkpoint finds."""
    assert main(["test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/last.ckpt", *flags]) == 0
    found: dict[str, float] = json.loads((folder / "report/test.json").read_text())["conditions"]["mean"]
    return {name: found[name] for name in ("accuracy", "loss")}


def fit(food101: Path, text_folder: Path, root: Path, name: str, *flags: str) -> Path:
    """The folder of a fit with dropout, and an uneven last batch."""
    known = ["fit", f"--config={CONFIGS}/food101.yaml", *tiny_flags(food101, text_folder), f"--run_root={root}"]
    known += ["--trainer.log_every_n_steps=1", "--trainer.precision=32-true", "--data.batch_size=20"]
    assert main([*known, "--model.schedule.name=constant_with_warmup", f"--name={name}", *flags]) == 0
    return root / name / "0"


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_a_fit_is_the_same(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """Step by step; and its checkpoint is tested without what it was trained with."""
    eager, both = (fit(food101, text_folder, tmp_path, *how) for how in (["eager"], ["both", *BOTH]))
    assert losses(both) == pytest.approx(losses(eager), rel=1e-3)
    assert results_of(both, *NEITHER) == pytest.approx(results_of(eager), rel=1e-3)


@pytest.mark.compiler
def test_going_on_without_is_the_same(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """And so are tests with."""
    found = []
    for name, begun, gone_on in (("plain", NEITHER, NEITHER), ("mixed", BOTH, NEITHER)):
        folder = fit(food101, text_folder, tmp_path, f"{name}_begun", *begun)
        checkpoint = f"--ckpt_path={folder}/checkpoints/last.ckpt"
        folder = fit(food101, text_folder, tmp_path, name, *gone_on, "--trainer.max_epochs=2", checkpoint)
        found.append((losses(folder), results_of(folder, *begun)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-2)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-2)


@pytest.mark.compiler
@pytest.mark.parametrize(("model", "checkpointed"), [("food101", "false"), ("food101_mmrl", "true")])
def test_two_processes(
    model: str, checkpointed: str, food101: Path, text_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    """Compiled in two processes of one sample less in some steps, and neither compiled nor in two."""
    flags = tiny_flags(food101, text_folder) if model == "food101" else mmrl_flags(food101, clip_folder)
    shared = [
        f"--config={CONFIGS}/{model}.yaml",
        *flags,
        "--trainer.log_every_n_steps=1",
        "--trainer.precision=32-true",
    ]
    shared += [f"--run_root={tmp_path}", "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.01"]
    shared += ["--model.fusion.dropout=0"] if model == "food101" else []
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=8"]
    two += ["--model.compile=true", f"--model.checkpoint_activations={checkpointed}"]
    for name, own in {"one": ["--trainer.devices=1", "--data.batch_size=16"], "two": two}.items():
        command = [sys.executable, "-m", "robusttune", "fit", *shared, *own, f"--name={name}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
    found, expected = losses(tmp_path / "two/0"), losses(tmp_path / "one/0")
    assert len(found) > 4
    assert found == pytest.approx(expected, rel=1e-2)
