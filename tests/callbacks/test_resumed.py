"""A fit resumes with all of its state, or says in one sentence what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import tiny_flags

from robusttune.callbacks import TrainingState
from robusttune.checkpoint_file import read_checkpoint, seal
from robusttune.cli import main
from robusttune.errors import RobustTuneError

CONFIG = Path(__file__).parents[2] / "configs" / "food101.yaml"
LAST = "food101/0/checkpoints/last.ckpt"
PARTS = ("loops", "optimizer_states", "lr_schedulers", "callbacks", "ImageTextDataModule")


@pytest.fixture(scope="module")
def fit(food101: Path, text_folder: Path) -> list[str]:
    return ["fit", f"--config={CONFIG}", *tiny_flags(food101, text_folder)]


@pytest.fixture(scope="module")
def trained(fit: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a fit of one epoch."""
    root = tmp_path_factory.mktemp("runs")
    assert main([*fit, f"--run_root={root}"]) == 0
    return root / LAST


def changed(trained: Path, path: Path, **parts: Any) -> Path:
    """The checkpoint with other parts, as a version that wrote less would have written it; None leaves one out."""
    checkpoint = {name: part for name, part in {**read_checkpoint(trained), **parts}.items() if part is not None}
    seal(checkpoint)
    torch.save(checkpoint, path)
    return path


def test_what_was_restored_is_one_line(
    trained: Path, fit: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = read_checkpoint(trained)["global_step"]
    assert main([*fit, "--trainer.max_epochs=2", f"--ckpt_path={trained}", f"--run_root={tmp_path}"]) == 0
    assert (
        f"restored from {trained}: epoch 1; step {steps}; optimizer AdamW; schedule LambdaLR; "
        "data position 96 in epoch 0; callbacks RunFolder, BestCheckpoint, LastCheckpoint"
    ) in caplog.text


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing_is_refused(trained: Path, tmp_path: Path, part: str) -> None:
    checkpoint = read_checkpoint(changed(trained, tmp_path / "a.ckpt", **{part: None}))
    with pytest.raises(RobustTuneError, match="a.ckpt cannot be resumed, since it has no .*: give the last.ckpt"):
        TrainingState.of(checkpoint, "a.ckpt")


@pytest.mark.slow
def test_weights_alone_are_refused_before_anything_is_written(
    trained: Path, fit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(trained, tmp_path / "a.ckpt", optimizer_states=None, lr_schedulers=None, callbacks=None)
    assert main([*fit, f"--ckpt_path={path}", f"--run_root={tmp_path}/runs"]) == 1
    error = capsys.readouterr().err
    assert (
        "a.ckpt cannot be resumed, since it has no optimizer states, no learning rate schedules, no callback" in error
    )
    assert not (tmp_path / "runs").exists()
    assert main(["test", *fit[1:], f"--ckpt_path={path}"]) == 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"optimizer_states": []}, "it has the state of 0 optimizers, expected 1"),
        ({"lr_schedulers": []}, "it has the state of 0 learning rate schedules, expected 1"),
    ],
)
def test_fewer_states_than_there_are_optimizers_are_refused(
    trained: Path,
    fit: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    parts: dict[str, Any],
    message: str,
) -> None:
    path = changed(trained, tmp_path / "a.ckpt", **parts)
    resume = [*fit, "--trainer.max_epochs=2", f"--ckpt_path={path}", f"--run_root={tmp_path}/runs"]
    assert main(resume) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_goes_on_needs_the_state_of_its_callbacks(
    trained: Path, fit: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """And one that starts from another's checkpoint says which have none."""
    two = [*fit, "--trainer.max_epochs=2", f"--run_root={tmp_path}"]
    states = {key: state for key, state in read_checkpoint(trained)["callbacks"].items() if "Best" not in key}
    assert main([*two, f"--ckpt_path={changed(trained, tmp_path / 'a.ckpt', callbacks=states)}"]) == 0
    assert "without earlier state: BestCheckpoint" in caplog.text
    run = tmp_path / "food101/0"
    (run / "finished.json").unlink()
    changed(trained, run / "checkpoints/last.ckpt", callbacks=states)
    assert main([*two, "--resume=auto"]) == 1
    assert "since it has no state of BestCheckpoint" in capsys.readouterr().err
