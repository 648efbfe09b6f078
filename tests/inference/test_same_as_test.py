"""A loaded model gives each sample the probabilities that `robusttune test` reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import method_flags, mmrl_flags, tiny_flags

import robusttune
from robusttune.cli import main
from robusttune.data.sources import Food101

CONFIGS = Path(__file__).parents[2] / "configs"
METHODS = ("dcp", "dpl", "dpl_dcp", "mora_food101", "lora")
EXACT = ["--trainer.precision=32-true", "--data.cache.folder=null"]


def train_and_test(root: Path, *flags: str) -> Path:
    """Return the folder of a run that was trained for an epoch and tested."""
    assert main(["fit", *flags, *EXACT, f"--run_root={root}"]) == 0
    run = next(root.glob("*/0"))
    assert main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt"]) == 0
    return run


def samples(food101: Path) -> dict[str, list[Any]]:
    """Return the columns of the test split."""
    table = Food101(root=str(food101)).read("test")
    assert table is not None
    columns: dict[str, list[Any]] = table.to_pydict()
    return columns


def assert_same(run: Path, food101: Path) -> None:
    """Compare the predictions of a loaded model with the report of the test.

    With all views at once, as in the test, they are the same bit for bit; with one modality left out, up to rounding.
    """
    reported = pq.read_table(run / "report/test.parquet").to_pylist()
    table = samples(food101)
    model = robusttune.load(run)
    whole = model.predict(images=table["image"], texts=table["text"], explain=True, batch_size=32)
    missing, exact = [None] * len(table["id"]), 0
    for condition, views in {"complete": None, "no_image": "text", "no_text": "image"}.items():
        images = missing if condition == "no_image" else table["image"]
        texts = missing if condition == "no_text" else table["text"]
        alone = model.predict(images=images, texts=texts, batch_size=32)
        by_id = {row["id"]: row for row in reported if row["condition"] == condition}
        assert len(by_id) == len(alone)
        for sample_id, one, every in zip(table["id"], alone, whole, strict=True):
            expected = by_id[sample_id]
            assert one.label == expected["prediction"]
            assert one.probability == pytest.approx(expected["confidence"], abs=1e-6)
            assert one.probabilities[expected["label"]] == pytest.approx(expected["label_probability"], abs=1e-6)
            same = every if views is None else every.alone.get(views)  # only of a sample that has both
            if same is not None:
                assert same.probability == expected["confidence"]
                exact += 1
    assert exact > len(table["id"])


def test_molt(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """Also through `evaluate`, and in batches of another size up to rounding."""
    run = train_and_test(
        tmp_path, f"--config={CONFIGS}/food101.yaml", *tiny_flags(food101, text_folder), "--model.calibrate=true"
    )
    assert_same(run, food101)
    model = robusttune.load(run)
    names = ["complete", "no_image", "noisy_image_blur_3+noisy_text_typos_2", "missing_both_50"]
    found = model.evaluate(Food101(root=str(food101)), names, batch_size=32)
    flag = f"--data.evaluation.conditions=[{','.join(names)}]"
    assert main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt", flag]) == 0
    expected = json.loads((run / "report/test.json").read_text())
    for name in names:
        assert found.metrics[name] == pytest.approx(expected["conditions"][name], rel=1e-6, nan_ok=True), name
        assert found.intervals[name]["accuracy"] == pytest.approx(expected["intervals"][name]["accuracy"])
    table = samples(food101)
    whole, single = (
        model.predict_proba(images=table["image"], texts=table["text"], batch_size=size) for size in (32, 1)
    )
    np.testing.assert_allclose(single, whole, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["fusion/experts", "baselines/late_fusion", "baselines/cross_attention"])
def test_other_fusion_models(overlay: str, food101: Path, text_folder: Path, tmp_path: Path) -> None:
    flags = [flag for flag in tiny_flags(food101, text_folder) if "model.fusion" not in flag]
    assert_same(
        train_and_test(tmp_path, f"--config={CONFIGS}/food101.yaml", f"--config={CONFIGS}/{overlay}.yaml", *flags),
        food101,
    )


@pytest.mark.slow
@pytest.mark.parametrize("overlay", [None, "baselines/zero_shot"])
def test_models_on_a_clip(overlay: str | None, food101: Path, clip_folder: Path, tmp_path: Path) -> None:
    flags = [f"--config={CONFIGS}/food101_mmrl.yaml", *mmrl_flags(food101, clip_folder)]
    if overlay is not None:
        flags = [flag for flag in flags if "adapter" not in flag]
        flags.insert(1, f"--config={CONFIGS}/{overlay}.yaml")
    assert_same(train_and_test(tmp_path, *flags), food101)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_methods_on_a_clip(method: str, food101: Path, clip_folder: Path, tmp_path: Path) -> None:
    """After training on samples that lack modalities, and with a temperature for each pattern of modalities."""
    flags = [f"--config={CONFIGS}/{name}.yaml" for name in ("food101", f"methods/{method}", "missing/both_70")]
    flags += [*method_flags(food101, clip_folder, method), "--model.calibrate=true", "--data.missing.test=null"]
    assert_same(train_and_test(tmp_path, *flags), food101)
