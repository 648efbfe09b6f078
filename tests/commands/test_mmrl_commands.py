"""MMRL through the command line: base and new classes, images alone, a cache, published weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fakes import mmrl_flags, write_table
from safetensors.torch import load_file
from torch.optim.lr_scheduler import CosineAnnealingLR

from robusttune.cli import main
from robusttune.tasks import MMRLTask

CONFIGS = Path(__file__).parents[2] / "configs"
EXPORT = ["export", "--format=published"]
SMALL = ["--data.source.train=96", "--data.source.val=48", "--data.source.test=120", "--trainer.max_epochs=2"]
SMALL += ["--model.adapter.space_width=16", "--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit of two epochs on base classes, without a cache."""
    root = tmp_path_factory.mktemp("runs")
    flags = [*SMALL, "--data.cache.folder=null", "--data.loader.workers=0", f"--run_root={root}"]
    assert main(["fit", f"--config={CONFIGS}/demo_mmrl.yaml", *flags]) == 0
    return root / "demo_mmrl/0"


def report_of(run: Path, *flags: str, checkpoint: Path | None = None) -> dict[str, dict[str, Any]]:
    path = checkpoint or run / "checkpoints/best.ckpt"
    assert main(["test", f"--config={run}/config.yaml", f"--ckpt_path={path}", *flags]) == 0
    report = path.parent if checkpoint else run
    found: dict[str, dict[str, Any]] = json.loads((report / "report/test.json").read_text())["conditions"]
    return found


def test_base_new_and_their_harmonic_mean_in_one_test(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Base and new accuracy are those of testing on either alone."""
    apart = {part: report_of(run, f"--data.source.world.part={part}") for part in ("base", "new")}
    assert all(next(iter(found["complete"])) == "accuracy" for found in apart.values())
    capsys.readouterr()
    both = report_of(run, "--data.source.world.part=all")
    assert re.search(r"│ +base +┃|┃ +base ┃ +new ┃", capsys.readouterr().out)
    for condition, row in both.items():
        assert [*row][:4] == ["base_accuracy", "new_accuracy", "harmonic_mean", "unknown_accuracy"]
        if condition != "mean":
            base, new = row["base_accuracy"], row["new_accuracy"]
            assert row["harmonic_mean"] == pytest.approx(2 * base * new / (base + new))
            assert row["bayes_fraction"] == pytest.approx(row["unknown_accuracy"] / row["bayes_accuracy"])
    assert both["complete"]["new_accuracy"] > 0.9  # by the names alone
    assert (run / "report/test.png").is_file()


def test_new_classes_are_refused_with_the_classes_of_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data.source.world.part=all", "--data.evaluation.classes=training"]
    assert main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt", *flags]) == 1
    assert "have a label that training does not know" in capsys.readouterr().err


@pytest.mark.slow
def test_settings_override_those_of_the_checkpoint(run: Path) -> None:
    """Also with other templates, which data sets have of their own."""
    recorded = report_of(run, "--data.source.world.part=new")
    assert report_of(run, "--data.source.world.part=new", "--model.inference=class") == recorded
    assert report_of(run, "--data.source.world.part=new", "--model.inference=fused") != recorded
    other = report_of(run, "--data.source.world.part=new", '--model.templates=["a picture of a {}"]')
    assert other["complete"]["loss"] != recorded["complete"]["loss"]


@pytest.mark.slow
def test_a_cache_changes_nothing(run: Path, tmp_path: Path) -> None:
    """Neither training nor testing."""
    flags = [*SMALL, f"--data.cache.folder={tmp_path}/cache", "--data.cache.dtype=float32", f"--run_root={tmp_path}"]
    assert main(["fit", f"--config={CONFIGS}/demo_mmrl.yaml", *flags]) == 0
    plain, cached = (
        MMRLTask.load_from_checkpoint(p / "checkpoints/last.ckpt") for p in (run, tmp_path / "demo_mmrl/0")
    )
    for name, expected in plain.classifier.network.state_dict().items():
        torch.testing.assert_close(cached.classifier.network.state_dict()[name], expected, rtol=1e-3, atol=1e-5)
    found, expected = report_of(tmp_path / "demo_mmrl/0"), report_of(run)
    for condition, row in expected.items():
        assert found[condition].pop("loss") == pytest.approx(row.pop("loss"), rel=1e-3)
        assert found[condition] == pytest.approx(row, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["image", pytest.param("text", marks=pytest.mark.slow)])
def test_one_modality_alone(missing: str, food101: Path, clip_folder: Path, tmp_path: Path) -> None:
    """Data of images only, or of texts only: training, test and prediction."""
    rows = [
        {"id": path.name, "image": str(path), "text": path.stem.replace("_", " "), "label": path.parent.name}
        for path in sorted((food101 / "images/train").rglob("*.jpg"))
    ]
    flags = [*mmrl_flags(Path("none"), clip_folder), f"--data.source.train={write_table(tmp_path, 'train', rows)}"]
    flags += [f"--data.source.{missing}_column=null", f"--data.source.test={tmp_path}/train.jsonl"]
    config = (
        (CONFIGS / "food101_mmrl.yaml").read_text().replace("init_args:\n      root: data/food101", "init_args: {}")
    )
    (tmp_path / "config.yaml").write_text(config.replace("sources.Food101", "sources.Table"))
    fit = ["fit", f"--config={tmp_path}/config.yaml", *flags, "--data.training.modality_dropout.image_dropout=0"]
    assert main([*fit, "--data.training.modality_dropout.text_dropout=0", f"--run_root={tmp_path}"]) == 0
    assert list(report_of(tmp_path / "food101_mmrl/0")) == ["complete", "mean"]  # no modality can be missing
    found = report_of(tmp_path / "food101_mmrl/0", "--data.evaluation.conditions=[complete,no_image,no_text]")
    other = {"image": "no_text", "text": "no_image"}[missing]
    assert found[f"no_{missing}"] == found["complete"]
    assert found[other]["accuracy"] == pytest.approx(1 / 12)  # the prior, where all classes are as frequent
    run = tmp_path / "food101_mmrl/0"
    predict = ["predict", f"--ckpt_path={run}", f"--input={tmp_path}/train.jsonl", f"--out={tmp_path}/out"]
    assert main([*predict, f"--data.source.{missing}_column=null", "--data.loader.workers=0"]) == 0
    assert len(pq.read_table(tmp_path / "out/parts")) == 96


def test_published_weights_are_imported_and_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the published trainer leaves them: beside its schedule and accuracy, with a frozen buffer."""
    out = tmp_path / "weights.safetensors"
    assert main([*EXPORT, f"--ckpt_path={run}", f"--out={out}"]) == 0
    state = load_file(out)
    assert "14 tensors written" in capsys.readouterr().out
    assert {name.split(".")[0] for name in state} == {"representation_learner", "image_encoder"}
    buffer = {"representation_learner.prompt_embeddings": torch.zeros(24, 77, 128), "logit_scale": torch.zeros(())}
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
    schedule = {"successor": CosineAnnealingLR(optimizer, 10), "warmup_epoch": 1, "base_lrs": [1e-3]}
    published = {"state_dict": state | buffer, "epoch": 10, "scheduler": schedule, "val_result": np.float64(81.5)}
    published["optimizer"] = optimizer.state_dict()
    torch.save(published, tmp_path / "model.pth.tar-10")
    load = ["import", f"--config={CONFIGS}/demo_mmrl.yaml", *SMALL[:5], f"--out={tmp_path}/run/imported.ckpt"]
    assert main([*load, f"--published={tmp_path}/model.pth.tar-10"]) == 0
    told = capsys.readouterr().out
    assert "14 tensors matched" in told
    assert "2 frozen tensors ignored" in told
    assert report_of(run, checkpoint=tmp_path / "run/imported.ckpt") == report_of(run)


def test_published_weights_that_do_not_fit(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written."""
    assert main([*EXPORT, f"--ckpt_path={run}/checkpoints/best.ckpt", f"--out={tmp_path}/a.pth"]) == 0
    load = ["import", f"--config={run}/config.yaml", f"--published={tmp_path}/a.pth", f"--out={tmp_path}/b.ckpt"]
    assert main([*load, "--image_encoder.first_layer=3"]) == 1
    assert "has besides representation_learner.compound_rep_tokens_r2vproj.2.weight" in capsys.readouterr().err
    assert not (tmp_path / "b.ckpt").exists()


def test_import_accepts_published_weights_with_their_clip(run: Path, tmp_path: Path) -> None:
    """Published checkpoints also hold parts of the frozen CLIP, in half precision."""
    assert main([*EXPORT, f"--ckpt_path={run}/checkpoints/best.ckpt", f"--out={tmp_path}/a.pth"]) == 0
    state = torch.load(tmp_path / "a.pth", weights_only=True)["state_dict"]
    task = MMRLTask.load_from_checkpoint(run / "checkpoints/best.ckpt")
    for modality, names in (("image", ("proj", "ln_post.weight")), ("text", ("text_projection", "ln_final.weight"))):
        upper: Any = task.classifier.encoder(f"{modality}_encoder").upper
        for name, tensor in zip(names, (upper.projection.weight.T, upper.norm.weight), strict=True):
            state[f"{modality}_encoder.{name}"] = tensor.half()
    torch.save(state, tmp_path / "b.pth")
    load = ["import", f"--config={run}/config.yaml", f"--out={tmp_path}/c.ckpt"]  # of a run, with its own trainer
    assert main([*load, f"--published={tmp_path}/b.pth", "--trainer.devices=7"]) == 0
    assert (tmp_path / "c.ckpt").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision(tmp_path: Path, precision: str) -> None:
    """Trains, and answers as in full precision, but for rounding."""
    flags = [*SMALL, "--data.cache.folder=null", "--data.loader.workers=0", f"--run_root={tmp_path}"]
    assert main(["fit", f"--config={CONFIGS}/demo_mmrl.yaml", *flags, f"--trainer.precision={precision}"]) == 0
    half = report_of(tmp_path / "demo_mmrl/0")
    full = report_of(tmp_path / "demo_mmrl/0", "--trainer.precision=32-true")
    for condition, row in full.items():
        assert half[condition]["accuracy"] == pytest.approx(row["accuracy"], abs=0.05)
        assert half[condition]["loss"] == pytest.approx(row["loss"], rel=0.1, abs=0.05)
