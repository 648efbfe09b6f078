"""Fits with streamed training samples: interrupted and resumed, on several processes, with wrong settings."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forked import run_command
from same_run import differences
from tars import streamed, write_tar

from robusttune import interruption
from robusttune.checkpoint_file import read_checkpoint
from robusttune.cli import main

SIZES = [40, 25, 31, 8, 17]  # 121 samples: 16 batches of up to 8 in an epoch
pytestmark = pytest.mark.usefixtures("one_thread", "one_signal")


@pytest.fixture
def one_signal() -> Iterator[None]:
    """Forget the signal that the process has received."""
    yield
    interruption.clear_signal()


@pytest.fixture(autouse=True)
def prepared_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the files that the `datasets` library prepares in the test's temporary folder."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "prepared"))  # of other processes
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "prepared")


@pytest.fixture
def config(tmp_path: Path, text_folder: Path) -> Path:
    """Return a configuration of a small fit, whose settings are complete."""
    source = streamed(tmp_path, SIZES)
    columns = ("path", "image_column", "text_column", "label_column", "files")
    settings: dict[str, Any] = {
        "name": "streamed",
        "image_encoder": {
            "class_path": "robusttune.encoders.TimmEncoder",
            "init_args": {"name": "test_vit", "weights": "random", "layers": 2, "grid": 2, "size": 32},
        },
        "text_encoder": {
            "class_path": "robusttune.encoders.TransformersTextEncoder",
            "init_args": {"name": str(text_folder), "weights": "pretrained", "layers": 2, "max_length": 16},
        },
        "data": {
            "source": {
                "class_path": "robusttune.data.sources.HuggingFace",
                "init_args": {name: getattr(source, name) for name in columns} | {"stream": {"buffer": 20}},
            },
            "batch_size": 8,
            "missing": {"train": {"rate": 0.3, "type": "both"}},
            "loader": {"workers": 0},
        },
        "model": {
            "class_path": "robusttune.tasks.FusionTask",
            "init_args": {
                "fusion": {
                    "class_path": "robusttune.models.MoLT",
                    "init_args": {"common_width": 16, "bilinear_width": 16, "fusion_width": 16, "cca_dim": 1},
                }
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 40,
            "val_check_interval": 9,
            "check_val_every_n_epoch": None,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": ["interrupting.SignalAt"],
        },
    }
    path = tmp_path / "streamed.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.parametrize(
    ("steps", "flags"),
    [
        pytest.param([5], (), id="in the first epoch"),
        pytest.param([16, 31], (), id="at the end of an epoch, and before another", marks=pytest.mark.slow),
        pytest.param([7, 22], ("--data.loader.workers=2",), id="with loader processes", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_fit_equals_an_uninterrupted_one(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[int], flags: tuple[str, ...]
) -> None:
    fit = ["fit", f"--config={config}", *flags]
    assert main([*fit, f"--run_root={tmp_path}/whole"]) == 0
    again = [*fit, f"--run_root={tmp_path}/parts", "--resume=auto"]
    for step in steps:
        with monkeypatch.context() as patch:
            patch.setenv("SIGNAL", "SIGTERM")
            patch.setenv("AT_STEP", str(step))
            assert main(again) == 1
        interruption.clear_signal()
        assert read_checkpoint(tmp_path / "parts/streamed/0/checkpoints/last.ckpt")["global_step"] < 40
    assert main(again) == 0
    assert differences(tmp_path / "parts/streamed/0", tmp_path / "whole/streamed/0") == []


@pytest.mark.slow
def test_two_processes_fit(config: Path, tmp_path: Path) -> None:
    """The losses are finite although one of them runs out of samples first, and the state has the positions of both."""
    two = ("--trainer.devices=2", "--trainer.strategy=ddp", f"--run_root={tmp_path}/runs")
    assert "streamed from 5 files" in run_command("fit", f"--config={config}", *two)
    run = tmp_path / "runs/streamed/0"
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) == 40
    assert all(map(math.isfinite, losses))
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["ImageTextDataModule"]
    assert [len(parts) for parts in state["positions"]] == [1, 1]


WRONG = {
    "no end": (
        ["--trainer.max_steps=-1"],
        "the schedule has no end, since the samples are a stream: set trainer.max_steps",
    ),
    "recipe": (["--recipe=auto", "--model.fusion=null"], "recipe is auto, which counts the training samples"),
    "a model that is fitted at once": (
        ["--config=fusion/linear", "--trainer.max_epochs=1"],
        "model.fusion is fitted to all training samples at once",
    ),
    "subset": (["--data.splits.subset=10"], "data.splits.subset needs all training samples at once"),
    "no validation": (["--data.source.split_names.val=null"], "the data has no val split: give one to data.source"),
}


@pytest.mark.parametrize("name", [*WRONG])
def test_what_a_stream_cannot_do_is_said(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    flags, expected = WRONG[name]
    assert main(["fit", f"--config={config}", f"--run_root={tmp_path}", *flags]) == 1
    assert expected in " ".join(capsys.readouterr().err.split())


def test_a_plan_needs_the_number_of_samples(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", f"--config={config}"]) == 1
    assert "plan counts the training samples, and data.source.stream reads them" in capsys.readouterr().err


def test_a_label_in_the_middle_of_an_epoch(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "train-04.tar", [{"cls": b"7", "txt": b"soup"}])
    assert main(["fit", f"--config={config}", f"--run_root={tmp_path}/runs"]) == 1
    error = capsys.readouterr().err
    assert "'7' of '4-0'" in error
    assert "or list all classes in data.source.stream.classes" in error
