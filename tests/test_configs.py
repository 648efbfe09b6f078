"""Every shipped configuration runs, with tiny encoders in the place of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import mmrl_flags, tiny_flags, write_table

from robusttune.cli import main

CONFIGS = Path(__file__).parents[1] / "configs"
COMPLETE = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted(CONFIGS.glob("*/*.yaml"))
ON_THE_CPU = {"gpus.yaml": ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"]}


def test_all_are_found() -> None:
    assert {path.name for path in COMPLETE} >= {
        "demo.yaml",
        "demo_mmrl.yaml",
        "food101.yaml",
        "food101_mmrl.yaml",
        "table.yaml",
    }
    assert OVERLAYS
    assert {*COMPLETE, *OVERLAYS} == set(CONFIGS.rglob("*.yaml"))


def flags_for(config: Path, food101: Path, text_folder: Path, folder: Path) -> list[str]:
    if config.stem.startswith("demo"):  # which have encoders and data of their own
        sizes = [f"--data.source.{split}=48" for split in ("train", "val", "test")]
        return [f"--config={config}", *sizes, "--trainer.max_epochs=1", f"--run_root={folder}"]
    tiny = mmrl_flags if config.stem.endswith("_mmrl") else tiny_flags
    flags = [f"--config={config}", *tiny(food101, text_folder), f"--run_root={folder}"]
    if config.name == "emoji.yaml":
        flags += ["--image_encoder.model_args={}", "--data.source.val=null", "--data.source.test=null"]
    elif config.name != "table.yaml":
        return flags
    rows = [
        {"id": path.name, "image": str(path), "text": path.stem.replace("_", " "), "label": path.parent.name}
        for path in sorted((food101 / "images/train").rglob("*.jpg"))
    ]
    return [flag for flag in flags if "source.root" not in flag] + [
        f"--data.source.train={write_table(folder, 'train', rows)}"
    ]


@pytest.mark.parametrize("config", COMPLETE, ids=lambda path: path.name)
def test_complete_configurations(
    config: Path, food101: Path, text_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    encoder = clip_folder if config.stem.endswith("_mmrl") else text_folder
    assert main(["fit", *flags_for(config, food101, encoder, tmp_path)]) == 0
    assert list(tmp_path.glob(f"{config.stem}/0/checkpoints/best.ckpt"))


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_overlays(overlay: Path, food101: Path, text_folder: Path, tmp_path: Path) -> None:
    flags = flags_for(CONFIGS / "food101.yaml", food101, text_folder, tmp_path)
    flags.insert(1, f"--config={overlay}")
    assert main(["fit", *flags, *ON_THE_CPU.get(overlay.name, [])]) == 0
