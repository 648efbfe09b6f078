"""MoRA and LoRA through the Trainer: from features that are computed once, they train and predict as without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from robusttune.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
SETS = {"train": 48, "val": 16, "test": 24}


def fitted(folder: Path, method: str, *flags: str) -> Path:
    """Return the run of two steps on the demo's CLIP, with a test."""
    configs = [f"--config={CONFIGS}/{name}.yaml" for name in ("demo", f"methods/{method}", "missing/both_70")]
    encoders = [f"--{m}_encoder.{s}" for m in ("image", "text") for s in ("name=robusttune:demo_clip", "first_layer=3")]
    data = [f"--data.source.{name}={count}" for name, count in SETS.items()]
    given = ["accelerator=cpu", "precision=32-true", "max_epochs=2", "enable_progress_bar=false", "log_every_n_steps=1"]
    settings = ["--text_encoder.max_length=32", "--data.batch_size=24", "--trainer.limit_train_batches=1", *flags]
    trainer = [f"--trainer.{each}" for each in given]
    assert main(["fit", *configs, *encoders, *data, *trainer, *settings, f"--run_root={folder}"]) == 0
    run = next(folder.glob("*/0"))
    assert main(["test", f"--ckpt_path={run}"]) == 0
    return run


@pytest.mark.parametrize("method", ["mora_hateful_memes", pytest.param("lora", marks=pytest.mark.slow)])
def test_features_that_are_computed_once_change_nothing(method: str, tmp_path: Path) -> None:
    plain, cached = (
        fitted(tmp_path / name, method, f"--data.cache.folder={folder}", "--data.cache.dtype=float32")
        for name, folder in (("plain", "null"), ("cached", tmp_path / "cache"))
    )
    assert [*(tmp_path / "cache").rglob("*.safetensors")]
    weights = [torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (plain, cached)]
    assert weights[0].keys() == weights[1].keys()
    assert not any("dummy" in name or "block" in name for name in weights[0])  # trained weights alone are stored
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=2e-5, rtol=1e-4, msg=name)
    found, expected = (pq.read_table(run / "report/test.parquet").to_pydict() for run in (cached, plain))
    assert found["id"] == expected["id"]
    np.testing.assert_allclose(found["confidence"], expected["confidence"], atol=1e-4)
