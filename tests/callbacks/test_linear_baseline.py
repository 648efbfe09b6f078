"""The comparison with logistic regression at the end of a fit: one true line, which changes nothing of the fit."""

from __future__ import annotations

import csv
import logging
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from fakes import grouped, tiny_flags, tiny_image_encoder, tiny_text_encoder, write_table
from forked import run_command
from lightning.pytorch import Callback, Trainer

from robusttune.callbacks import BestCheckpoint, LinearBaseline, linear_baseline
from robusttune.checkpoint_file import read_checkpoint
from robusttune.cli import main
from robusttune.data import ImageTextDataModule
from robusttune.data.sources import Table
from robusttune.models import Concatenation, LinearNetwork
from robusttune.tasks import FusionTask

CONFIGS = Path(__file__).parents[2] / "configs"
LINE = re.compile(r"(val/\w+/\w+) ([\d.]+) \(best checkpoint\) against ([\d.]+) for logistic regression(.*)")
CLASSES = ["soup", "cake", "pie"]


def rows_of(multilabel: bool, count: int = 48) -> list[dict[str, Any]]:
    """Texts that name a sample's label more often than not."""
    random, rows = Random(0), []
    for _ in range(count):
        label = random.sample(CLASSES, 1 + multilabel * random.randrange(2))
        named = [name for name in CLASSES if (name in label) != (random.random() < 0.2)]
        rows.append({"text": f"a photo {' and '.join(named)}", "label": label if multilabel else label[0]})
    return rows


def fit(folder: Path, text_folder: Path, *more: str, overlay: str = "baselines/concatenation", **settings: Any) -> Path:
    """Fit a model on tables of texts, and return the folder of the run."""
    flags = flags_of(folder, text_folder, *more, overlay=overlay, **settings)
    before = {*folder.glob("*/*/config.yaml")}
    assert main(flags) == 0
    (config,) = {*folder.glob("*/*/config.yaml")} - before
    return config.parent


def flags_of(folder: Path, text_folder: Path, *more: str, overlay: str, **settings: Any) -> list[str]:
    """Return the arguments of a fit on tables of texts, with a cache."""
    multilabel = settings.pop("multilabel", False)
    tables = [
        str(write_table(folder, split, rows_of(multilabel, size))) for split, size in (("train", 48), ("val", 30))
    ]
    flags = [flag for flag in tiny_flags(folder, text_folder) if not flag.startswith("--model.fusion.")]
    flags += [
        f"--data.source.{split}={table}"
        for split, table in zip(("train", "val", "test"), [*tables, tables[1]], strict=True)
    ]
    flags += ["--data.source.image_column=null", f"--data.source.multilabel={str(multilabel).lower()}"]
    flags += ["--trainer.precision=32-true", f"--data.cache.folder={folder}/cache", "--data.cache.dtype=float32"]
    flags += [f"--run_root={folder}", f"--name={overlay.split('/')[1]}", *more]
    return ["fit", f"--config={CONFIGS}/table.yaml", f"--config={CONFIGS}/{overlay}.yaml", *flags]


def logged(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def line_of(caplog: pytest.LogCaptureFixture) -> re.Match[str] | None:
    found = [match for record in caplog.records if (match := LINE.fullmatch(record.getMessage()))]
    assert len(found) < 2
    return found[0] if found else None


@pytest.mark.parametrize(("multilabel", "metric"), [(False, "val/mean/accuracy"), (True, "val/mean/f1_macro")])
def test_it_is_the_score_that_a_fit_of_logistic_regression_logs(
    multilabel: bool, metric: str, text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The remedy is there because one step trains nothing."""
    caplog.set_level(logging.INFO)
    run = fit(tmp_path, text_folder, "--model.optimizer.lr=1e-6", multilabel=multilabel)
    line = line_of(caplog)
    assert line is not None
    assert line[1] == metric
    assert float(line[2]) == pytest.approx(max(logged(run, metric)), abs=6e-4)
    caplog.clear()
    linear = fit(tmp_path, text_folder, overlay="fusion/linear", multilabel=multilabel)
    assert line_of(caplog) is None  # It would compare with itself.
    (expected,) = logged(linear, metric)
    assert float(line[3]) == pytest.approx(expected, abs=6e-4)
    assert expected > float(line[2])
    assert "try --config configs/fusion/stacking.yaml, or raise trainer.max_epochs" in line[4]


def test_it_changes_nothing_of_a_run(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = []
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
        made.append(fit(tmp_path / name, text_folder, "--trainer.max_epochs=2"))
        monkeypatch.setattr(LinearBaseline, "on_train_end", lambda *_: None)
    assert line_of(caplog) is not None  # of one of them
    first, second = ([read_checkpoint(run / f"checkpoints/{name}.ckpt") for name in ("best", "last")] for run in made)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=0, atol=0)
        assert one["callbacks"].keys() == other["callbacks"].keys()
    assert (made[0] / "metrics.csv").read_text() == (made[1] / "metrics.csv").read_text()


class Watch(Callback):
    """A callback that keeps the state of torch's random numbers, and the weights, at the end of training."""

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.state = torch.get_rng_state()
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


def run_trainer(folder: Path, text_folder: Path, *callbacks: Callback, **settings: Any) -> FusionTask:
    """Fit with a plain Trainer, and return the task."""
    cached, monitored = settings.pop("cached", True), settings.pop("monitored", True)
    tables = [str(write_table(folder, split, rows_of(False))) for split in ("train", "val")]
    source = Table(train=tables[0], val=tables[1], image_column=None)
    made = tiny_image_encoder(), tiny_text_encoder(text_folder)
    data = ImageTextDataModule(source, *made, **grouped(workers=0, folder=str(folder / "cache") if cached else None))
    torch.manual_seed(0)
    task = FusionTask(*made, data.facts, Concatenation(width=8), beta=0.0)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    best = [BestCheckpoint("val/mean/accuracy")] if monitored else []
    trainer = Trainer(
        **quiet, accelerator="cpu", max_epochs=1, default_root_dir=folder, callbacks=[*callbacks, *best], **settings
    )
    trainer.fit(task, datamodule=data)
    return task


def test_random_numbers_weights_and_metrics_stay(
    text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before, after = Watch(), Watch()
    task = run_trainer(tmp_path, text_folder, before, LinearBaseline(), after)
    assert line_of(caplog) is not None
    assert torch.equal(before.state, after.state)
    torch.testing.assert_close(before.weights, after.weights, rtol=0, atol=0)
    assert not isinstance(task.classifier.network, LinearNetwork)


def test_an_error_is_a_warning(text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(LinearNetwork, "fit", fail)
    with pytest.warns(UserWarning, match=r"no comparison with logistic regression, which has failed \(no memory\)"):
        run_trainer(tmp_path, text_folder, LinearBaseline())


@pytest.mark.parametrize(
    "settings",
    [
        {"cached": False},
        {"limit_train_batches": 1},
        {"limit_val_batches": 1},
        {"limit_val_batches": 0},
        {"fast_dev_run": True},
        {"monitored": False},
    ],
    ids=str,
)
def test_it_is_silent(
    settings: dict[str, Any],
    text_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a cache, validation or best checkpoint, and in fits that are cut short."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(LinearNetwork, "fit", lambda *_: pytest.fail("there is nothing to compare"))
    run_trainer(tmp_path, text_folder, LinearBaseline(), **settings)
    assert "logistic regression" not in caplog.text


def test_it_is_silent_for_large_data(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for rows, labels, is_compared in ((48, 144, True), (47, 144, False), (48, 143, False)):
        monkeypatch.setattr(linear_baseline, "MOST_ROWS", rows)
        monkeypatch.setattr(linear_baseline, "MOST_LABELS", labels)
        caplog.clear()
        run_trainer(tmp_path, text_folder, LinearBaseline())
        assert (line_of(caplog) is not None) == is_compared


@pytest.mark.slow
def test_two_processes_print_what_one_does(text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fit(tmp_path, text_folder)
    line = line_of(caplog)
    assert line is not None
    (tmp_path / "two").mkdir()
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=16"]
    flags = flags_of(tmp_path / "two", text_folder, *two, overlay="baselines/concatenation")
    assert [score for _, _, score, _ in LINE.findall(run_command(*flags))] == [line[3]]
