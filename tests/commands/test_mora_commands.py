"""Checkpoints of MoRA's published code are imported, and our weights are exported under its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from robusttune.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = [
    *(f"--config={CONFIGS}/{name}.yaml" for name in ("demo", "methods/mora_food101")),
    *(f"--{modality}_encoder.name=robusttune:demo_clip" for modality in ("image", "text")),
    *(f"--{modality}_encoder.first_layer=3" for modality in ("image", "text")),
    "--text_encoder.max_length=32",
]
CLASSES, WIDTH, RANK = 24, 128, 4


def published(first_layer: int = 3, **metadata: Any) -> dict[str, Any]:
    """Return what `best_model.pt` has of a model on the demo's CLIP, with random numbers."""
    random = torch.Generator().manual_seed(0)
    shapes = {"cls_head.weight": (CLASSES, 2 * WIDTH), "cls_head.bias": (CLASSES,)}
    for layer in range(first_layer - 1, 4):
        for tower in ("text", "vision"):
            start = f"model.{tower}_model.encoder.layers.{layer}.self_attn"
            for target in ("q_proj", "v_proj"):
                parts = {"modality_A": (WIDTH, RANK), "modality_B": (RANK, WIDTH)}
                parts |= dict.fromkeys(("shared_magnitude", "specific_magnitude"), (1, WIDTH))
                shapes |= {f"{start}.{target}.{part}": shape for part, shape in parts.items()}
        for part in ("A", "B"):
            name = f"model.text_model.encoder.layers.{layer}.self_attn.v_proj.shared_params.shared_{part}"
            shapes[name] = (WIDTH, RANK)
    tensors = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    return {**tensors, "_metadata": {"backbone": "demo", "num_classes": CLASSES, "alpha": 0.01, **metadata}}


def imported(tmp_path: Path, content: dict[str, Any], *flags: str) -> int:
    torch.save(content, tmp_path / "best_model.pt")
    return main(["import", *SMALL, f"--published={tmp_path}/best_model.pt", f"--out={tmp_path}/mine.ckpt", *flags])


def test_published_weights_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = published()
    assert imported(tmp_path, content) == 0
    assert "38 tensors matched" in capsys.readouterr().out
    out = tmp_path / "back.safetensors"
    assert main(["export", "--format=published", f"--ckpt_path={tmp_path}/mine.ckpt", f"--out={out}"]) == 0
    back, _ = load_file(out), content.pop("_metadata")
    assert back.keys() == content.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in content.items())


def test_weights_of_other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(tmp_path, published(first_layer=2)) == 1
    told = capsys.readouterr().err
    assert "has besides model.text_model.encoder.layers.1.self_attn.q_proj.modality_A" in told
    assert "its targets are q_proj, v_proj, shared_rank 4, image_rank 4, text_rank 4, first_layer 2" in told
    assert imported(tmp_path, published(alpha=0.1)) == 1
    assert "was trained with alpha 0.1, and model.fusion.alpha is 0.01: set it to 0.1" in capsys.readouterr().err
    assert not (tmp_path / "mine.ckpt").exists()
