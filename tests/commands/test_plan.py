"""The plan of a fit, against the fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import mmrl_flags, tiny_flags

from robusttune.checkpoint_file import read_checkpoint
from robusttune.cli import main
from robusttune.commands.plan import device_count
from robusttune.tasks import FusionTask, MMRLTask

CONFIGS = Path(__file__).parents[2] / "configs"
FEW = ["--steps=3"]
Found = dict[str, Any]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and a folder for temporary files, in which nothing may be left."""
    place = tmp_path / "elsewhere"
    (place / "temporary").mkdir(parents=True)
    monkeypatch.chdir(place)
    monkeypatch.setattr("tempfile.tempdir", str(place / "temporary"))
    return place


@pytest.fixture
def fusion(food101: Path, text_folder: Path) -> list[str]:
    return [f"--config={CONFIGS}/food101.yaml", *tiny_flags(food101, text_folder)]


@pytest.fixture
def mmrl(food101: Path, clip_folder: Path) -> list[str]:
    return [
        f"--config={CONFIGS}/food101_mmrl.yaml",
        *mmrl_flags(food101, clip_folder),
        "--data.training.augmentation=null",
    ]


def planned(tmp_path: Path, *flags: str) -> Found:
    path = tmp_path / "plan.json"
    assert main(["plan", *flags, *FEW, f"--json={path}"]) == 0
    found: Found = json.loads(path.read_text())
    return found


def sizes_in(checkpoint: Found) -> tuple[int, int]:
    """Trained numbers, and bytes of the optimiser's state, as a fit wrote them."""
    states = [state for optimizer in checkpoint["optimizer_states"] for state in optimizer["state"].values()]
    numbers = sum(state["exp_avg"].numel() for state in states)
    return numbers, sum(value.nbytes for state in states for value in state.values() if isinstance(value, torch.Tensor))


def test_numbers_are_those_of_a_fit(fusion: list[str], tmp_path: Path, elsewhere: Path) -> None:
    plan = planned(tmp_path, *fusion)
    assert sorted(path.name for path in elsewhere.rglob("*")) == ["temporary"]
    assert main(["fit", *fusion, f"--run_root={tmp_path}"]) == 0
    path = tmp_path / "food101/0/checkpoints/last.ckpt"
    checkpoint = read_checkpoint(path)
    numbers, state = sizes_in(checkpoint)
    assert plan["model"]["trained"] == numbers
    assert plan["memory"]["optimizer_state"] == state
    assert plan["memory"]["gradients"] == plan["traffic"]["step"] == 4 * numbers
    assert plan["time"]["step"]["batches"] == checkpoint["global_step"]  # of one epoch
    assert plan["disk"]["checkpoint"] == pytest.approx(path.stat().st_size, rel=0.2)
    task = FusionTask.load_from_checkpoint(path)
    for name in ("image_encoder", "text_encoder"):
        assert plan["model"]["frozen"][name] == sum(p.numel() for p in task.classifier.encoder(name).parameters())
    assert plan["model"]["frozen_flops"] > 0
    assert plan["disk"]["features"] == []
    assert plan["samples"] == {"train": 86, "val": 10, "test": 36}


@pytest.mark.slow
def test_a_cached_mmrl_keeps_its_cache_for_later(mmrl: list[str], tmp_path: Path, elsewhere: Path) -> None:
    cache = tmp_path / "cache"
    flags = [*mmrl, f"--data.cache.folder={cache}", "--trainer.devices=2", "--trainer.num_nodes=2"]
    plan = planned(tmp_path, *flags)
    assert not cache.exists()
    assert sorted(path.name for path in elsewhere.rglob("*")) == ["temporary"]
    assert plan["model"]["frozen_flops"] == 0
    assert {part["what"] for part in plan["disk"]["features"]} == {"images", "texts"}
    assert main(["fit", *mmrl, f"--data.cache.folder={cache}", f"--run_root={tmp_path}"]) == 0
    path = next(tmp_path.glob("*/0/checkpoints/last.ckpt"))
    numbers, state = sizes_in(read_checkpoint(path))
    assert (
        plan["model"]["trained"]
        == numbers
        == sum(p.numel() for p in MMRLTask.load_from_checkpoint(path).classifier.network.parameters())
    )
    assert plan["memory"]["optimizer_state"] == state
    on_disk = sum(shard.stat().st_size for shard in cache.rglob("*.safetensors"))
    told = sum(part["bytes"] for part in plan["disk"]["features"] if part["inputs"])
    assert told > 0.9 * on_disk  # the test split is not in it yet
    again = planned(tmp_path, *flags)["disk"]["features"]
    assert [part["missing"] for part in again[:2]] == [0, 0]


def test_several_devices_share_an_epoch(fusion: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(tmp_path, *fusion, "--trainer.devices=2", "--trainer.num_nodes=2", "--data.batch_size=4")
    assert plan["time"]["step"]["batches"] == 6  # 86 samples by 4 devices are 22 each
    assert plan["time"]["validation_step"]["batches"] == 1  # 10 by 4 are 3
    assert plan["extent"] | {"devices": 2, "nodes": 2} == plan["extent"]
    captured = capsys.readouterr()
    assert "4 devices (2 x 2)" in captured.out
    assert "communication time between devices is not included" in captured.out


@pytest.mark.slow
def test_the_settings_of_the_trainer_count(fusion: list[str], tmp_path: Path) -> None:
    flags = ["--trainer.max_epochs=null", "--trainer.max_steps=6", "--trainer.accumulate_grad_batches=2"]
    flags += ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=0", "--trainer.fast_dev_run=true"]
    time = planned(tmp_path, *fusion, *flags)["time"]
    assert time["step"]["batches"] == 2
    assert time["epochs"] == 6
    assert time["validation_step"] is None
    assert time["fit"] == pytest.approx(6 * time["epoch"])


@pytest.mark.slow
def test_what_is_computed_again_is_not_kept(fusion: list[str], tmp_path: Path) -> None:
    """And is counted twice."""
    plain = planned(tmp_path, *fusion)
    again = planned(tmp_path, *fusion, "--model.checkpoint_activations=true")
    assert again["memory"]["activations"] < plain["memory"]["activations"]
    assert again["model"]["flops"] > plain["model"]["flops"]
    assert again["model"]["frozen_flops"] == plain["model"]["frozen_flops"]


def test_the_table_has_every_section(fusion: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *fusion, *FEW, "--data.cache.folder=auto"]) == 0
    captured = capsys.readouterr()
    for words in ("Model", "trained parameters", "GFLOP", "Memory a device", "activations", "MiB", "feature cache"):
        assert words in captured.out
    for words in ("Time, measured on", "epoch", "validation", "filling the cache", "fit"):
        assert words in captured.out
    assert "86 samples" not in captured.err  # what a run tells of itself


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_an_accelerator_that_is_not_here_is_reported(fusion: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = [f"--config={CONFIGS}/trainer/gpus.yaml", "--trainer.accelerator=gpu", "--trainer.devices=8"]
    assert main(["plan", *fusion, *flags, *FEW]) == 0
    out = capsys.readouterr().out
    assert "8 devices" in out
    assert "note: there is no gpu here: times and memory are those of cpu" in out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--steps=0"], "--steps is 0: give at least 1"),
        (["--json=."], "--json . is a folder: give another path"),
        (["--trainer.devices=0"], "trainer.devices is 0: give a number of at least 1, or auto"),
        (["--trainer.num_nodes=0"], "trainer.num_nodes is 0: give at least 1"),
        (["--trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches is 0: give at least 1"),
        (["--trainer.max_epochs=-1"], "the schedule has no end: set trainer.max_epochs or trainer.max_steps"),
        (["--trainer.limit_train_batches=0"], "trainer.limit_train_batches leaves no batch to train on: raise it"),
        (["--trainer.strategy=fsdp"], "trainer.strategy fsdp shards a model"),
        (["--data.source.root=nowhere"], "nowhere"),
        (["--sleps=3"], "sleps is no setting"),
    ],
)
def test_wrong_input(
    flags: list[str], sentence: str, fusion: list[str], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *fusion, *flags]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("robusttune: error: ")
    assert sentence in error
    assert sorted(path.name for path in elsewhere.rglob("*")) == ["temporary"]


def test_what_trains_nothing_has_no_plan(mmrl: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = [flag for flag in mmrl if "adapter" not in flag]
    assert main(["plan", *flags, f"--config={CONFIGS}/baselines/zero_shot.yaml"]) == 1
    assert "ZeroShotTask trains nothing" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("devices", "count"), [(3, 3), ("3", 3), ([0, 2], 2), ("0,2", 2), ("0,", 1), ("auto", 1), (-1, 1), ("-1", 1)]
)
def test_devices_as_the_trainer_takes_them(devices: Any, count: int) -> None:
    assert device_count(devices, "cpu") == count
