"""Fits with short epochs from the cache: features in memory, validations and checkpoints that are left out."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from same_run import differences

from robusttune.callbacks import SafeCheckpointIO, last_checkpoint
from robusttune.cli import main
from robusttune.data.cache import feature_cache
from robusttune.tasks import validation_interval

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
FIT = [
    *("fit", f"--config={CONFIG}", "--data.source.train=60", "--data.source.val=20", "--data.source.test=20"),
    *("--data.batch_size=16", "--trainer.max_epochs=3", "--trainer.log_every_n_steps=1"),
    *("--trainer.enable_progress_bar=false", "--image_encoder.layers=2", "--text_encoder.layers=2"),
    "--data.evaluation.conditions=[complete,no_image]",
]
RANDOM = [
    *("--data.missing.train={rate: 0.3, type: both}", "--data.cache.views=2"),
    "--data.noise.train={image: {kinds: [blur], severities: [1, 3]}, text: {kinds: [typos], severities: [2]}}",
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def fit(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function from flags to the folder of a fit with them."""

    def run(*flags: str) -> Path:
        root = tmp_path_factory.mktemp("runs")
        assert main([*FIT, f"--data.cache.folder={tmp_path}", f"--run_root={root}", *flags]) == 0
        return root / "demo/0"

    return run


@pytest.mark.slow
def test_a_fit_from_memory_is_the_fit_from_files(fit: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, metrics and weights, with modality dropout, missing modalities and noise in two random views."""
    in_memory = fit(*RANDOM)
    monkeypatch.setattr(feature_cache, "keep_in_memory", lambda *_: None)
    assert differences(in_memory, fit(*RANDOM)) == []


def validated(run: Path) -> list[int]:
    """Return the epochs that were followed by a validation."""
    with (run / "metrics.csv").open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file) if row["val/mean/accuracy"]]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        pytest.param((), [1, 3, 5, 7], id="epochs"),
        pytest.param(
            ("--trainer.max_steps=24", "--trainer.max_epochs=-1"), [1, 3, 5], id="steps", marks=pytest.mark.slow
        ),
        pytest.param(("--trainer.val_check_interval=4",), [*range(8)], id="interval", marks=pytest.mark.slow),
        pytest.param(("--trainer.check_val_every_n_epoch=8",), [7], id="every", marks=pytest.mark.slow),
    ],
)
def test_many_short_epochs_are_validated_less_often(
    fit: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], expected: list[int]
) -> None:
    """The last epoch is validated in any case, and an interval that is set stays."""
    monkeypatch.setattr(validation_interval, "VALIDATIONS", 3)
    assert validated(fit("--trainer.max_epochs=8", *flags)) == expected


@pytest.mark.parametrize(("apart", "steps"), [pytest.param(0.0, [4, 8, 12], marks=pytest.mark.slow), (1000.0, [4, 12])])
def test_last_checkpoint_is_not_written_after_every_short_epoch(
    fit: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, apart: float, steps: list[int]
) -> None:
    """It is written after the first epoch, after the last one, and after those that end late enough."""
    saved: list[int] = []
    save = SafeCheckpointIO.save_checkpoint

    def recorded(self: SafeCheckpointIO, checkpoint: dict[str, Any], path: Path, **options: Any) -> None:
        saved.extend([checkpoint["global_step"]] * (Path(path).name == "last.ckpt"))
        save(self, checkpoint, path, **options)

    monkeypatch.setattr(SafeCheckpointIO, "save_checkpoint", recorded)
    monkeypatch.setattr(last_checkpoint, "APART", apart)
    fit()
    assert saved == steps
