"""Overlays for baselines and ablations: they change the expected settings and no others, and one pair runs."""

from __future__ import annotations

import functools
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from robusttune.cli import main
from robusttune.models import Concatenation, CrossAttention, Experts, FusionModel, ImageOnly, LateFusion, TextOnly
from robusttune.settings import from_plain, to_plain

CONFIGS = Path(__file__).parents[1] / "configs"
BASELINES: dict[str, FusionModel] = {
    "concatenation": Concatenation(),
    "cross_attention": CrossAttention(),
    "image_only": ImageOnly(),
    "late_fusion": LateFusion(),
    "linear_probe": Concatenation(width=0, dropout=0.0),
    "text_only": TextOnly(),
}
# For each ablation what it changes, as a path through the configuration.
ABLATIONS: dict[str, dict[str, Any]] = {
    "no_bilinear_pooling": {
        "name": "molt_no_bilinear_pooling",
        "model.init_args.fusion.init_args.pooling": "concatenation",
    },
    "no_correlation": {"name": "molt_no_correlation", "model.init_args.beta": 0.0},
    "no_modality_dropout": {
        "data.training.modality_dropout.image_dropout": 0.0,
        "data.training.modality_dropout.text_dropout": 0.0,
    },
    "no_fusion_stage": {"name": "molt_no_fusion_stage", "model.init_args.fusion.init_args.fusion_layers": 0},
    "no_null_tokens": {"name": "molt_no_null_tokens", "model.init_args.fusion.init_args.null_tokens": 0},
}


@functools.cache
def parsed(*configs: str) -> dict[str, Any]:
    """Return the settings of configurations, each laid over those before it.

    The result is cached, so that it must not be changed.
    """
    out, err = io.StringIO(), io.StringIO()
    flags = [f"--config={CONFIGS}/{config}.yaml" for config in configs]
    status: object = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(["fit", *flags, "--print_config"])
        except SystemExit as ended:
            status = ended.code
    assert (status or 0, err.getvalue()) == (0, "")
    settings: dict[str, Any] = yaml.safe_load(out.getvalue())
    return settings


def leaves(settings: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return settings by their paths."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        below = isinstance(value, dict) and value
        found |= leaves(value, f"{path}{key}.") if below else {f"{path}{key}": value}
    return found


def test_all_are_found() -> None:
    assert {path.stem for path in (CONFIGS / "baselines").iterdir()} == {*BASELINES, "zero_shot"}
    assert {path.stem for path in (CONFIGS / "ablations").iterdir()} == set(ABLATIONS)


@pytest.mark.parametrize("base", ["demo", "food101"])
@pytest.mark.parametrize("overlay", BASELINES)
def test_baseline_replaces_the_fusion_model_only(overlay: str, base: str) -> None:
    expected = deepcopy(parsed(base))
    expected["name"] = overlay
    expected["model"]["init_args"] |= {"fusion": to_plain(BASELINES[overlay]), "beta": 0.0}
    found = parsed(base, f"baselines/{overlay}")
    assert found == expected
    assert from_plain(found["model"]["init_args"]["fusion"], FusionModel) == BASELINES[overlay]


def test_experts_train_on_every_presence_pattern() -> None:
    before, after = (leaves(parsed("food101", *more)) for more in ([], ["fusion/experts"]))
    fusion = leaves({"fusion": to_plain(Experts())}, "model.init_args.")
    assert {path: value for path, value in after.items() if value != before.get(path)} == fusion | {
        "name": "experts",
        "data.training.modality_dropout.image_dropout": 0.0,
        "data.training.modality_dropout.text_dropout": 0.0,
        "model.init_args.beta": 0.0,
        "model.init_args.every_pattern": True,
        "model.init_args.label_smoothing": 0.2,
        "model.init_args.calibrate": True,
    }


@pytest.mark.parametrize("overlay", ABLATIONS)
def test_ablation_changes_one_thing(overlay: str) -> None:
    before = leaves(parsed("demo"))
    after = leaves(parsed("demo", f"ablations/{overlay}"))
    assert before.keys() == after.keys()
    assert {path: value for path, value in after.items() if value != before[path]} == ABLATIONS[overlay]


ELSEWHERE = ("baselines", "ablations", "protocols")  # protocols are no overlays, and have tests of their own
OTHERS = [path for path in sorted(CONFIGS.glob("*/*.yaml")) if path.parent.name not in ELSEWHERE]


@pytest.mark.parametrize("overlay", OTHERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_setting_of_an_overlay_is_taken(overlay: Path) -> None:
    of_clip = overlay.parent.name in ("clip", "mmrlpp")
    base = "oxford_pets_mmrl" if of_clip else "hugging_face" if overlay.stem == "stream" else "food101"
    found = leaves(parsed(base, f"{overlay.parent.name}/{overlay.stem}"))
    given = leaves(yaml.safe_load(overlay.read_text()))
    assert {path: found.get(path) for path in given} == given


@pytest.mark.slow
def test_two_overlays_run_together(tmp_path: Path) -> None:
    """The image-only model scores the same without texts, and another score without images."""
    flags = [f"--data.source.{split}=48" for split in ("train", "val", "test")]
    overlays = ("demo", "baselines/image_only", "ablations/no_modality_dropout")
    configs = [f"--config={CONFIGS}/{name}.yaml" for name in overlays]
    quick = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    assert main(["fit", *configs, *flags, *quick, f"--run_root={tmp_path}"]) == 0
    folder = tmp_path / "image_only/0"
    assert main(["test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/best.ckpt"]) == 0
    found = json.loads((folder / "report/test.json").read_text())["conditions"]
    for measure in ("accuracy", "f1_macro", "loss"):
        assert found["no_text"][measure] == found["complete"][measure]
        assert found["no_image"][measure] != found["complete"][measure]
