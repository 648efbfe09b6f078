"""A plain Trainer fills the feature cache of the data with the task's encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FACTS, grouped, tiny_image_encoder, tiny_text_encoder
from lightning.pytorch import Trainer
from tasks.test_condition_views import encoders, source_of, task_of

from robusttune.data import ImageTextDataModule, ModalityDropout
from robusttune.errors import RobustTuneError
from robusttune.models import Concatenation
from robusttune.tasks import FusionTask, MMRLTask
from robusttune.tasks.cache_filling import CacheFilling
from robusttune.types import Facts

KINDS = ["fusion", "mmrl"]
NO_DROPOUT = ModalityDropout(0.0, 0.0)


def trainer(**settings: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False}
    return Trainer(**{**quiet, "accelerator": "cpu", "max_epochs": 1} | settings)


def module(place: Path, made: list[Any], **changes: Any) -> ImageTextDataModule:
    settings = {"batch_size": 12, "workers": 0, "dtype": "float32", "modality_dropout": NO_DROPOUT} | changes
    return ImageTextDataModule(source_of(place), *made, **grouped(**settings))


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_trainer_computes_features_once(
    kind: str, text_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    made = encoders(kind, text_folder, clip_folder)
    data = module(tmp_path, made, folder=str(tmp_path / "cache"))
    task = task_of(kind, made, data.facts)
    runner = trainer()
    runner.fit(task, datamodule=data)
    assert len([*(tmp_path / "cache").rglob("*.safetensors")]) == 2  # of images and of texts
    for name in ("image_encoder", "text_encoder"):
        assert not [*task.classifier.encoder(name).backbone.parameters()]
    trained = {name: value.clone() for name, value in task.state_dict().items()}
    runner.test(task, datamodule=data, verbose=False)
    assert len([callback for callback in runner.callbacks if isinstance(callback, CacheFilling)]) == 1  # type: ignore[attr-defined]
    other = module(tmp_path, made)
    plain = task_of(kind, made, other.facts)
    trainer().fit(plain, datamodule=other)
    for name, value in plain.state_dict().items():
        if "encoder" not in name:
            torch.testing.assert_close(trained[name], value, rtol=1e-3, atol=1e-5)


def test_no_cache_keeps_the_encoders(text_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    made = encoders("fusion", text_folder, clip_folder)
    data = module(tmp_path, made)
    task = task_of("fusion", made, data.facts)
    trainer().test(task, datamodule=data, verbose=False)
    assert [*task.classifier.image_encoder.backbone.parameters()]


def test_wrong_classes_are_refused_before_anything_is_computed(text_folder: Path, tmp_path: Path) -> None:
    made: Any = [tiny_image_encoder(), tiny_text_encoder(text_folder)]
    data = module(tmp_path, made, folder=str(tmp_path / "cache"))
    with pytest.raises(RobustTuneError, match="the data's classes are not the model's"):
        trainer().fit(FusionTask(made[0], made[1], FACTS), datamodule=data)
    assert not (tmp_path / "cache").exists()


def test_classes_of_the_data_are_set_once_and_before_the_encoders_go(clip_folder: Path, tmp_path: Path) -> None:
    made: Any = encoders("mmrl", Path(), clip_folder)
    data = module(tmp_path, made, folder=str(tmp_path / "cache"), classes="all", facts=None)
    facts = Facts(["apple pie", "pug"], [0.5, 0.5], False)  # the data have soup and cake
    task, calls = MMRLTask(made[0], made[1], facts), []
    set_classes = task.classifier.set_classes
    task.classifier.set_classes = lambda names: calls.append(names) or set_classes(names)  # type: ignore[assignment, method-assign]
    trainer().test(task, datamodule=data, verbose=False)
    assert calls == [["cake", "soup"]]
    assert len(task.classifier.prompts().untouched) == 2
    assert not [*task.classifier.text_encoder.backbone.parameters()]  # the prompts were encoded before


@pytest.mark.parametrize("dropout", [ModalityDropout(0.25, 0.0), ModalityDropout(0.0, 0.5)])
def test_every_pattern_goes_with_no_modality_dropout(
    dropout: ModalityDropout, text_folder: Path, tmp_path: Path
) -> None:
    """It is refused before features are computed; a test, which drops nothing, is not."""
    made: Any = [tiny_image_encoder(), tiny_text_encoder(text_folder)]
    data = module(tmp_path, made, folder=str(tmp_path / "cache"), modality_dropout=dropout)
    task = FusionTask(made[0], made[1], data.facts, Concatenation(width=8), beta=0.0, every_pattern=True)
    message = (
        r"^model.every_pattern is true, and data.training.modality_dropout removes modalities \(image_dropout "
        rf"{dropout.image_dropout}, text_dropout {dropout.text_dropout}\): set both probabilities to 0$"
    )
    with pytest.raises(RobustTuneError, match=message):
        trainer().fit(task, datamodule=data)
    assert not (tmp_path / "cache").exists()
    trainer().test(task, datamodule=data, verbose=False)
    task.every_pattern = False
    trainer(limit_train_batches=1).fit(task, datamodule=data)
