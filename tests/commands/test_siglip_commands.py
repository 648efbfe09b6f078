"""SigLIP through the command line: MMRL is trained with a cache, tested, exported and used on new classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import mmrl_flags

import robusttune
from robusttune.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def run(food101: Path, siglip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a fit of one epoch, with the outputs of the lower layers in a cache."""
    root = tmp_path_factory.mktemp("runs")
    flags = [*mmrl_flags(food101, siglip_folder), f"--data.cache.folder={root}/cache", "--data.cache.views=2"]
    flags += ["--trainer.precision=32-true", "--data.cache.dtype=float32"]
    flags += ["--data.evaluation.conditions=[complete,no_image,no_text]"]
    assert main(["fit", f"--config={CONFIGS}/food101_mmrl.yaml", *flags, f"--run_root={root}"]) == 0
    return root / "food101_mmrl/0"


@pytest.mark.slow
def test_a_test_with_a_cache_is_one_without(run: Path) -> None:
    found = []
    for flags in ([], ["--data.cache.folder=null", "--data.cache.views=null"]):
        assert main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt", *flags]) == 0
        found.append(json.loads((run / "report/test.json").read_text())["conditions"])
    assert [*found[0]] == ["complete", "no_image", "no_text", "mean"]
    for condition, row in found[0].items():
        assert row == pytest.approx(found[1][condition], rel=1e-4)


def test_an_exported_folder_predicts_the_same_also_new_classes(run: Path, tmp_path: Path) -> None:
    assert main(["export", f"--ckpt_path={run}", "--format=standalone", f"--out={tmp_path}/model"]) == 0
    inputs: dict[str, Any] = {
        "images": [np.full((40, 30, 3), 90, np.uint8), None, None],
        "texts": ["apple pie", "soup", None],
    }
    live, exported = robusttune.load(run), robusttune.load(tmp_path / "model")
    for model in (live, exported):
        model.set_classes(["apple pie", "pug", "cake"])
    found = exported.predict_proba(**inputs)
    assert np.array_equal(found, live.predict_proba(**inputs))
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    assert not np.allclose(found[0], found[1])
