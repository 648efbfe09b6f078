"""Notes before a fit: each is there if the data or the steps are few, and not for fits that are small on purpose."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from fakes import grouped, tiny_image_encoder, tiny_text_encoder, write_table
from lightning.pytorch import Callback, Trainer

from robusttune.callbacks import BestCheckpoint
from robusttune.corruption.dropout import ModalityDropout
from robusttune.data import ImageTextDataModule, LoaderSettings, Splits
from robusttune.data.sources import Shapes, Table
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import DPL, Concatenation, LogisticRegression, Prototypes
from robusttune.tasks import FusionTask, ZeroShotTask
from robusttune.tasks.fit_notes import few_samples_note

STEPS = "optimiser steps in all are few: "
SAMPLES = "fewer than 5 training samples"
CHOICE = "few to choose the best checkpoint by"


def rows_of(count: int) -> list[dict[str, Any]]:
    """Return samples of two classes, and one each of two rare ones."""
    labels = ["tea", "pie", *(["soup", "cake"] * count)][:count]
    return [{"text": f"a photo {label}", "label": label} for label in labels]


def data_of(folder: Path, text_folder: Path, sizes: dict[str, int], **settings: Any) -> ImageTextDataModule:
    tables: dict[str, Any] = {split: str(write_table(folder, split, rows_of(size))) for split, size in sizes.items()}
    made = tiny_image_encoder(), tiny_text_encoder(text_folder)
    return ImageTextDataModule(Table(**tables, image_column=None), *made, **grouped(workers=0, **settings))


def notes(task: Any, data: ImageTextDataModule, folder: Path, caplog: pytest.LogCaptureFixture, **settings: Any) -> str:
    """Start a fit that does nothing but begin, and return what it logs."""

    class Begun(Exception):  # noqa: N818, no error
        """The first step of a fit."""

    def stop(*_: Any) -> None:
        raise Begun

    task.on_train_batch_start = stop
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "num_sanity_val_steps": 0, "default_root_dir": folder}
    callbacks: list[Callback] = [BestCheckpoint("val/mean/accuracy")] if settings.pop("monitored", True) else []
    caplog.set_level(logging.INFO)
    caplog.clear()
    trainer = Trainer(**quiet | {"max_epochs": 10} | settings, callbacks=callbacks)
    with pytest.raises(Begun):
        trainer.fit(task, datamodule=data)
    return caplog.text


def task_of(data: ImageTextDataModule, fusion: Any = None) -> FusionTask:
    fusion = fusion or Concatenation(width=8)
    return FusionTask(data.image_encoder, data.text_encoder, data.facts, fusion, beta=0.0)


def test_few_steps_and_samples_are_told_with_remedies(
    text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """90 samples in batches of 45, ten times: 20 steps. 250 epochs have 500; of batches of 32, with 3 steps, 167."""
    data = data_of(tmp_path, text_folder, {"train": 100}, batch_size=45)
    found = notes(task_of(data), data, tmp_path, caplog)
    remedy = "raise trainer.max_epochs to 250, or lower data.batch_size to 32 and raise trainer.max_epochs to 167"
    assert f"20 {STEPS}{remedy}" in found
    assert f"2 of 4 classes have {SAMPLES} ('" in found
    assert f"10 validation samples are {CHOICE}, since the standard error of an accuracy on them is about 0.16" in found
    assert "raise data.splits.val_fraction from 0.1, or give a validation table" in found


def test_remedies_do_what_they_promise(text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is enough is not told; a table of validation samples has no fraction to raise."""
    data = data_of(tmp_path, text_folder, {"train": 90, "val": 99}, batch_size=32)
    assert f"498 {STEPS}raise trainer.max_epochs to 167\n" in notes(
        task_of(data), data, tmp_path, caplog, max_epochs=166
    )
    found = notes(task_of(data), data, tmp_path, caplog, max_epochs=167)
    assert STEPS not in found
    assert f"99 validation samples are {CHOICE}" in found
    assert "about 0.05: add validation samples\n" in found
    data = data_of(tmp_path, text_folder, {"train": 90, "val": 100}, batch_size=32)
    assert CHOICE not in notes(task_of(data), data, tmp_path, caplog)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "steps samples choice"),
        ({"limit_train_batches": 1}, ""),
        ({"limit_val_batches": 1}, ""),
        ({"fast_dev_run": True}, ""),
        ({"max_steps": 7}, "samples choice"),
        ({"check_val_every_n_epoch": 10}, "steps samples"),
        ({"check_val_every_n_epoch": 10, "val_check_interval": 1}, "steps samples choice"),
        ({"monitored": False}, "steps samples"),
        ({"splits": Splits(shots=4)}, ""),
        ({"splits": Splits(subset=40)}, ""),
    ],
    ids=str,
)
def test_what_is_on_purpose_is_not_told(
    settings: dict[str, Any], told: str, text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = dict(settings)
    splits = settings.pop("splits", Splits())
    data = data_of(tmp_path, text_folder, {"train": 60, "val": 20}, batch_size=20, splits=splits)
    found = notes(task_of(data), data, tmp_path, caplog, **settings)
    known = {"steps": STEPS, "samples": SAMPLES, "choice": CHOICE}
    assert [name for name, part in known.items() if part in found] == told.split()


def test_tasks_without_steps_are_not_told_of_them(
    text_folder: Path, clip_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_of(tmp_path, text_folder, {"train": 60, "val": 20})
    assert STEPS not in notes(task_of(data, LogisticRegression(c=1.0)), data, tmp_path, caplog)
    image = CLIPImageEncoder(name=str(clip_folder), first_layer=3)
    text = CLIPTextEncoder(name=str(clip_folder), first_layer=3)
    source = Table(train=f"{tmp_path}/train.jsonl", val=f"{tmp_path}/val.jsonl", image_column=None)
    data = ImageTextDataModule(source, image, text, loader=LoaderSettings(workers=0))
    assert STEPS not in notes(ZeroShotTask(image, text, data.facts), data, tmp_path, caplog)


def test_generated_scenes_are_few_on_purpose(
    text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = tiny_image_encoder(), tiny_text_encoder(text_folder)
    data = ImageTextDataModule(Shapes(train=40, val=20), *made, loader=LoaderSettings(workers=0))
    found = notes(task_of(data), data, tmp_path, caplog)
    assert not [part for part in (STEPS, SAMPLES, CHOICE) if part in found]


def test_a_note_names_the_smallest_classes_only() -> None:
    sizes = {"a": 4, "b": 0, "c": 5, "d": 3, "e": 2}
    assert few_samples_note(sizes) == (
        "4 of 5 classes have fewer than 5 training samples ('b' 0, 'e' 2, 'd' 3, ...): add samples, or merge classes"
    )
    assert few_samples_note({"a": 4, "b": 9}) == (
        "1 of 2 classes has fewer than 5 training samples ('a' 4): add samples, or merge classes"
    )
    assert few_samples_note({"a": 5}) is few_samples_note({}) is None


@pytest.mark.parametrize(
    ("missing", "text_dropout", "every_pattern", "told"),
    [
        ("both", 0.0, False, "missing to image and share_untrained to true"),
        ("text", 0.0, False, "missing to none and share_untrained to true"),
        ("image", 0.0, False, None),
        ("both", 0.5, False, None),
        ("both", 0.0, True, None),
    ],
)
def test_prototypes_without_samples_are_told(
    missing: Any,
    text_dropout: float,
    every_pattern: bool,
    told: str | None,
    clip_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Samples are texts: of images alone, there are only those that modality dropout or every pattern would make."""
    clip: dict[str, Any] = {"name": str(clip_folder), "first_layer": 5}
    encoders = CLIPImageEncoder(**clip), CLIPTextEncoder(**clip)
    settings = grouped(workers=0, modality_dropout=ModalityDropout(0.0, text_dropout))
    table = Table(train=str(write_table(tmp_path, "train", rows_of(40))), image_column=None)
    data = ImageTextDataModule(table, *encoders, **settings)
    fusion = DPL(Prototypes(missing=missing))
    task = FusionTask(*encoders, data.facts, fusion, beta=0.0, every_pattern=every_pattern)
    found = notes(task, data, tmp_path, caplog)
    expected = f"no training sample has an image alone, whose prototypes learn nothing: set .*{told}"
    assert bool(re.search(expected, found)) == (told is not None)
    assert ("prototypes" in found) == (told is not None)
