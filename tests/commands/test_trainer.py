"""The main job through the command line: fit, test, predict, resume, and what goes wrong."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from fakes import tiny_flags, write_table
from PIL import Image

from robusttune.checkpoint_file import read_checkpoint
from robusttune.cli import main
from robusttune.tasks import FusionTask

CONFIG = Path(__file__).parents[2] / "configs" / "food101.yaml"


@pytest.fixture(scope="module")
def run(food101: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit of two epochs on the shipped configuration."""
    root = tmp_path_factory.mktemp("runs")
    flags = [
        *tiny_flags(food101, text_folder),
        "--trainer.max_epochs=2",
        "--trainer.log_every_n_steps=1",
        f"--run_root={root}",
    ]
    assert main(["fit", f"--config={CONFIG}", *flags]) == 0
    return root / "food101" / "0"


def verb(name: str, run: Path, *flags: str) -> int:
    return main([name, f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt", *flags])


def test_a_run_leaves_what_it_should(run: Path) -> None:
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "checkpoints", "metrics.csv"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (run / "checkpoints/last.ckpt").stat().st_size < 2_000_000
    with (run / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    assert {"train/loss", "train/correlation_loss", "val/complete/accuracy", "val/mean/accuracy"} <= set(columns)
    assert list(run.glob("events.*"))


def test_test_writes_the_table_beside_the_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("test", run) == 0
    out = capsys.readouterr().out
    found = json.loads((run / "report/test.json").read_text())["conditions"]
    assert list(found) == ["complete", "no_image", "no_text", "mean"]
    for name, metrics in found.items():
        assert f"{metrics['accuracy']:.4f}" in next(line for line in out.splitlines() if f"│ {name} " in line)
    with Image.open(run / "report/test.png") as picture:
        assert picture.width > 1000
    with (run / "report/test.csv").open() as file:
        rows = {row.pop("condition"): row for row in csv.DictReader(file)}
    assert {name: {k: float(v) for k, v in row.items()} for name, row in rows.items()} == found


def test_validate_agrees_with_the_score_of_the_checkpoint(run: Path) -> None:
    assert verb("validate", run) == 0
    found = json.loads((run / "report/validate.json").read_text())["conditions"]
    callbacks: dict[str, Any] = read_checkpoint(run / "checkpoints/best.ckpt")["callbacks"]
    score = next(state["best_model_score"] for name, state in callbacks.items() if "mean/accuracy" in name)
    assert found["mean"]["accuracy"] == pytest.approx(score.item())


def test_python_loads_what_the_command_line_trained(run: Path) -> None:
    task = FusionTask.load_from_checkpoint(run / "checkpoints/best.ckpt")
    assert len(task.facts.class_names) == 12


@pytest.mark.slow
def test_resuming_inside_an_epoch_with_another_batch_size_is_refused(
    food101: Path, text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", f"--config={CONFIG}", *tiny_flags(food101, text_folder), f"--run_root={tmp_path}"]
    assert main([*fit, "--data.batch_size=20", "--trainer.max_steps=2", "--trainer.val_check_interval=2"]) == 0
    checkpoint = tmp_path / "food101/0/checkpoints/last.ckpt"
    assert main([*fit, "--data.batch_size=10", f"--ckpt_path={checkpoint}"]) == 1
    assert "epoch of 20 samples a step over all devices, not 10" in capsys.readouterr().err


def as_table(food101: Path, folder: Path, names: dict[str, str]) -> Path:
    """The test split as a table of one's own, some classes renamed."""
    rows = [
        {
            "image": str(path),
            "text": path.stem.replace("_", " "),
            "label": names.get(path.parent.name, path.parent.name),
        }
        for path in sorted((food101 / "images/test").rglob("*.jpg"))
    ]
    return write_table(folder, "test", rows)


def table_flags(path: Path, run: Path) -> list[str]:
    """Test the run's checkpoint on a table."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["source"] = {"class_path": "robusttune.data.sources.Table", "init_args": {"test": str(path)}}
    changed = path.parent / "config.yaml"
    changed.write_text(yaml.safe_dump(config))
    return [f"--config={changed}", f"--ckpt_path={run}/checkpoints/best.ckpt"]


def test_the_checkpoints_classes_hold_for_other_data(run: Path, food101: Path, tmp_path: Path) -> None:
    """A table with some of the classes only, in an order of its own: labels are mapped by name."""
    path = as_table(food101, tmp_path, {})
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in reversed(lines) if '"tacos"' in line or '"pho"' in line))
    kept = shutil.copytree(run, tmp_path / "run")
    assert main(["predict", f"--ckpt_path={kept}", f"--input={path}", f"--out={tmp_path}/predictions"]) == 0
    predictions = pq.read_table(tmp_path / "predictions/parts")["prediction"].to_pylist()
    assert main(["test", *table_flags(path, kept)]) == 0
    accuracy = json.loads((kept / "report/test.json").read_text())["conditions"]["complete"]["accuracy"]
    labels = [json.loads(line)["label"] for line in path.read_text().splitlines()]
    assert accuracy == pytest.approx(sum(a == b for a, b in zip(predictions, labels, strict=True)) / len(labels))


def test_a_class_that_the_checkpoint_does_not_know_is_refused(
    run: Path, food101: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = table_flags(as_table(food101, tmp_path, {"pho": "bun_bo_hue"}), run)
    assert main(["test", *flags]) == 1
    assert (
        "of 36 samples, 3 have a label that training does not know (the first: 'bun_bo_hue' of"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_resumed_run_keeps_the_best_of_the_first(
    food101: Path, text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", f"--config={CONFIG}", *tiny_flags(food101, text_folder), f"--run_root={tmp_path}"]
    assert main(fit) == 0
    first = tmp_path / "food101/0/checkpoints"
    assert main([*fit, "--trainer.max_epochs=2", "--model.optimizer.lr=0", f"--ckpt_path={first}/last.ckpt"]) == 0
    scores = re.findall(r"Best checkpoint \(val/mean/accuracy ([\d.]+)\): (\S+)", capsys.readouterr().out)
    assert float(scores[1][0]) >= float(scores[0][0])
    second = tmp_path / "food101/1"
    assert (second / "checkpoints/best.ckpt").is_file()
    config = yaml.safe_load((second / "config.yaml").read_text())
    assert config["ckpt_path"] is None
    assert config["data"]["facts"] is None


@pytest.mark.slow
def test_multilabel_data_from_fit_to_test(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"image": str(path), "text": path.stem.replace("_", " "), "label": path.parent.name.split("_")}
        for path in sorted((food101 / "images/train").rglob("*.jpg"))
    ]
    table = write_table(tmp_path, "train", rows)
    flags = [flag for flag in tiny_flags(food101, text_folder) if "source.root" not in flag]
    flags += [f"--data.source.train={table}", f"--data.source.test={table}", "--data.source.multilabel=true"]
    assert main(["fit", f"--config={CONFIG.parent}/table.yaml", *flags, f"--run_root={tmp_path}"]) == 0
    run = tmp_path / "table/0"
    assert verb("test", run) == 0
    assert set(json.loads((run / "report/test.json").read_text())["conditions"]["no_image"]) >= {"f1_macro", "f1_micro"}


def test_tensorboard_need_not_be_installed(
    food101: Path, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robusttune.callbacks.run_folder.find_spec", lambda _: None)
    assert main(["fit", f"--config={CONFIG}", *tiny_flags(food101, text_folder), f"--run_root={tmp_path}"]) == 0
    assert not list((tmp_path / "food101/0").glob("events.*"))
    assert (tmp_path / "food101/0/metrics.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision", ["bf16-true", *(pytest.param(name, marks=pytest.mark.slow) for name in ("64-true", "32-true"))]
)
def test_what_is_trained_in_any_precision_can_be_loaded(
    precision: str, food101: Path, text_folder: Path, tmp_path: Path
) -> None:
    flags = [*tiny_flags(food101, text_folder), f"--trainer.precision={precision}", f"--run_root={tmp_path}"]
    assert main(["fit", f"--config={CONFIG}", *flags]) == 0
    assert verb("test", tmp_path / "food101/0") == 0
    FusionTask.load_from_checkpoint(tmp_path / "food101/0/checkpoints/best.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_frozen_parameters_are_counted_whether_or_not_they_are_in_memory(
    cached: bool,
    run: Path,
    food101: Path,
    text_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = FusionTask.load_from_checkpoint(run / "checkpoints/best.ckpt")
    encoders = (task.classifier.image_encoder, task.classifier.text_encoder)
    sizes = [sum(p.numel() for p in encoder.parameters()) for encoder in encoders]
    flags = [flag for flag in tiny_flags(food101, text_folder) if "summary" not in flag]
    flags += [f"--data.cache.folder={tmp_path}/cache"] if cached else []
    assert main(["fit", f"--config={CONFIG}", *flags, "--trainer.max_steps=1", f"--run_root={tmp_path}"]) == 0
    said = f"parameters are trained, {sum(sizes):,} are frozen (image encoder {sizes[0]:,}, text encoder {sizes[1]:,})"
    assert said in caplog.text
    assert "Non-trainable params" not in caplog.text + capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--trainer.fast_dev_run=true"],
        ["--trainer.overfit_batches=1"],
        ["--trainer.accumulate_grad_batches=2"],
        ["--trainer.log_every_n_steps=0"],
        ["--trainer.enable_checkpointing=false"],
    ],
)
def test_trainer_flags_that_people_debug_with(
    flags: list[str], food101: Path, text_folder: Path, tmp_path: Path
) -> None:
    fit = ["fit", f"--config={CONFIG}", *tiny_flags(food101, text_folder), f"--run_root={tmp_path}"]
    assert main([*fit, *flags]) == 0


def test_wrong_data_is_found_before_an_encoder_is_loaded(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robusttune.encoders.timm_image.TimmEncoder.load", lambda _: pytest.fail("was loaded"))
    flags = tiny_flags(tmp_path / "food101", text_folder)
    assert main(["fit", f"--config={CONFIG}", *flags]) == 1
