"""The same answer: however often it is run, stopped, cut into batches or spread over workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fakes import tiny_flags
from torch import Tensor

from robusttune.checkpoint_file import read_checkpoint
from robusttune.cli import main
from robusttune.tasks import FusionTask
from robusttune.tasks.losses import Losses
from robusttune.types import Batch

CONFIG = Path(__file__).parents[2] / "configs" / "food101.yaml"
# Sums in another order differ in the last digit, which training in float32 on a few samples blows up.
EXACT = ["--trainer.precision=64-true", "--model.optimizer=torch.optim.SGD", "--model.fusion.dropout=0"]


def fitted(food101: Path, text_folder: Path, root: Path, *flags: str) -> dict[str, Tensor]:
    """What is trained in a fit of one epoch."""
    count = len(list(root.glob("food101/*")))
    fit = ["fit", f"--config={CONFIG}", *tiny_flags(food101, text_folder), f"--run_root={root}"]
    assert main([*fit, "--data.batch_size=20", *flags]) == 0
    state: dict[str, Tensor] = read_checkpoint(root / f"food101/{count}/checkpoints/last.ckpt")["state_dict"]
    return state


@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
def test_the_same_seed_is_the_same_run(food101: Path, text_folder: Path, tmp_path: Path, precision: str) -> None:
    """Bit for bit, also with workers."""
    augmented = [
        "--data.training.augmentation.flip=0.5",
        "--data.noise.train.image.kinds=[gaussian,blur]",
        "--data.noise.train.text.kinds=[typos,other_text]",
    ]
    flags = [*augmented, f"--trainer.precision={precision}"]
    first = fitted(food101, text_folder, tmp_path, *flags)
    again = fitted(food101, text_folder, tmp_path, *flags, "--data.loader.workers=2", "--data.loader.prefetch=1")
    assert all(torch.equal(again[key], value) for key, value in first.items())
    other = fitted(food101, text_folder, tmp_path, *flags, "--seed_everything=1")
    assert not all(torch.equal(other[key], value) for key, value in first.items())


@pytest.mark.slow
def test_metrics_do_not_depend_on_batches_and_workers(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    fitted(food101, text_folder, tmp_path, "--trainer.precision=64-true")  # rounding changes no rank of a sample
    run = tmp_path / "food101/0"
    found = []
    for flags in (["--data.batch_size=36"], ["--data.batch_size=5", "--data.loader.workers=2"]):
        assert main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/last.ckpt", *flags]) == 0
        found.append(json.loads((run / "report/test.json").read_text())["conditions"])
    whole, parts = found
    for condition, values in whole.items():
        assert parts[condition] == pytest.approx(values, rel=1e-5)
        assert parts[condition]["accuracy"] == values["accuracy"]


@pytest.mark.slow
def test_accumulated_batches_are_one_batch(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """But for the correlation, which is of each batch alone."""
    flags = [*EXACT, "--model.beta=0", "--data.splits.subset=80", "--data.splits.val_fraction=0.2"]
    flags += ["--trainer.limit_train_batches={}", "--data.batch_size={}"]
    whole = [flag.format(2 if "limit" in flag else 32) for flag in flags]
    parts = [flag.format(4 if "limit" in flag else 16) for flag in flags]
    one = fitted(food101, text_folder, tmp_path, *whole)
    two = fitted(food101, text_folder, tmp_path, *parts, "--trainer.accumulate_grad_batches=2")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_gradients_are_clipped(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """With a learning rate of 1 and no momentum, a step is as long as its gradient."""
    flags = [*EXACT, "--model.schedule.warmup=0", "--model.schedule.name=constant_with_warmup"]
    flags += ["--model.optimizer.lr=1", "--model.optimizer.weight_decay=0"]
    flags += ["--trainer.max_steps={}", "--trainer.val_check_interval=1", "--trainer.gradient_clip_val=0.001"]
    one, two = (fitted(food101, text_folder, tmp_path, *(flag.format(n) for flag in flags)) for n in (1, 2))
    moved = torch.cat([(two[key] - one[key]).flatten() for key in one if two[key].is_floating_point()])
    assert moved.norm() == pytest.approx(0.001, rel=1e-3)


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What every training step sees and gets, from now on."""
    steps: list[tuple[Any, ...]] = []
    original = FusionTask.training_losses

    def losses(task: FusionTask, batch: Batch, batch_idx: int) -> Losses:
        found = original(task, batch, batch_idx)
        present = (tuple(batch.image_present.tolist()), tuple(batch.text_present.tolist()))
        steps.append((task.current_epoch, batch_idx, tuple(batch.sample_id), present, found.loss.item()))
        return found

    monkeypatch.setattr(FusionTask, "training_losses", losses)
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_a_cache_gives_the_same_losses_and_metrics(
    food101: Path, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """With dropout of modalities and in the network; a second run from the cache equals the first bit for bit."""
    steps = spied(monkeypatch)
    cache = [f"--data.cache.folder={tmp_path}/cache", f"--data.cache.dtype={dtype}"]
    runs, tested = [], []
    for number, flags in enumerate(([], cache, cache)):
        steps.clear()
        # Small steps: large ones blow up the last digit, in which the encoder's answers to other batches differ.
        slow = ["--trainer.precision=32-true", "--trainer.max_epochs=3", "--model.optimizer.lr=1.0e-5"]
        fitted(food101, text_folder, tmp_path, *slow, *flags)
        runs.append(list(steps))
        run = tmp_path / f"food101/{number}"
        assert main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/last.ckpt"]) == 0
        tested.append(json.loads((run / "report/test.json").read_text())["conditions"])
    plain, cached, again = runs
    assert cached == again
    assert [step[:-1] for step in cached] == [step[:-1] for step in plain]
    rel = 1e-6 if dtype == "float32" else 1e-3
    assert [step[-1] for step in cached] == pytest.approx([step[-1] for step in plain], rel=rel)
    for condition, values in tested[0].items():
        assert tested[1][condition]["loss"] == pytest.approx(values["loss"], rel=rel)
    assert tested[1] == tested[2]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resuming_inside_or_after_an_epoch_equals_not_stopping(
    food101: Path, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Bit for bit: the samples, their corruption, every loss, and the weights at the end."""
    steps = spied(monkeypatch)
    fit = ["fit", f"--config={CONFIG}", *tiny_flags(food101, text_folder), f"--run_root={tmp_path}"]
    fit += ["--trainer.max_epochs=2", "--data.batch_size=20", f"--data.loader.workers={workers}"]
    every_step = tmp_path / "every_step.yaml"
    arguments = {"filename": "{step}", "every_n_train_steps": 1, "save_top_k": -1}
    callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": arguments}
    every_step.write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
    assert main([*fit, f"--config={every_step}"]) == 0
    whole, first = list(steps), tmp_path / "food101/0/checkpoints"
    assert len(whole) == 10
    for stop in (5, 8):
        steps.clear()
        assert main([*fit, f"--ckpt_path={first}/step={stop}.ckpt"]) == 0
        assert steps == whole[stop:]
        folder = max((tmp_path / "food101").iterdir(), key=lambda path: int(path.name))
        expected, found = (read_checkpoint(path / "last.ckpt") for path in (first, folder / "checkpoints"))
        assert found["global_step"] == expected["global_step"]
        assert all(torch.equal(found["state_dict"][key], value) for key, value in expected["state_dict"].items())
