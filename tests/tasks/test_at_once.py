"""A fit of logistic regressions: before the first epoch, on all samples, whatever training would draw or drop."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FACTS, grouped, tiny_image_encoder, tiny_text_encoder
from lightning.pytorch import Trainer
from tasks.test_cache_filling import NO_DROPOUT, module, trainer
from tasks.test_condition_views import source_of

from robusttune.checkpoint_file import read_checkpoint
from robusttune.data import ImageTextDataModule, ModalityDropout, Splits
from robusttune.errors import RobustTuneError
from robusttune.inference import load
from robusttune.models import Balance, LinearNetwork, LogisticRegression, Stacking, StackingNetwork
from robusttune.tasks import FusionTask
from robusttune.types import View

VIEWS = [View(), View(image=None), View(text=None)]


def encoders(text_folder: Path) -> list[Any]:
    torch.manual_seed(0)
    return [tiny_image_encoder(), tiny_text_encoder(text_folder)]


def task_of(made: list[Any], data: Any, **changes: Any) -> FusionTask:
    image, text = made
    return FusionTask(image, text, data.facts, LogisticRegression(c=1.0), beta=0.0, **changes)


def weights(task: FusionTask) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.classifier.network.state_dict().items()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cached", [False, True])
def test_every_sample_counts_whatever_is_dropped(
    cached: bool, text_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Modality dropout, the batch size and the order change nothing; the log says so. One batch is as good as all."""
    made = encoders(text_folder)
    plain = module(tmp_path, made)
    expected = task_of(made, plain)
    trainer().fit(expected, datamodule=plain)
    network = expected.classifier.network
    assert isinstance(network, LinearNetwork)
    assert network.fitted
    assert network.both.weight.any()
    changes: dict[str, Any] = {"batch_size": 5, "modality_dropout": ModalityDropout(0.9, 0.1), "seed": plain.seed}
    data = module(tmp_path, made, **changes, **({"folder": str(tmp_path / "cache")} if cached else {}))
    task = task_of(made, data)
    with caplog.at_level(logging.INFO):
        trainer(limit_train_batches=1).fit(task, datamodule=data)
    assert_equal(weights(task), weights(expected))
    assert "data.training.modality_dropout is ignored" in caplog.text
    assert "logistic regression on image and text: 10 samples" in caplog.text
    assert "logistic regression on the image alone: 14 samples" in caplog.text


def test_a_checkpoint_predicts_as_the_task_and_is_not_fitted_again(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = encoders(text_folder)
    data = module(tmp_path, made)
    task = task_of(made, data, calibrate=True)
    runner = Trainer(**_checkpointing(tmp_path))
    runner.fit(task, datamodule=data)
    path = tmp_path / "run/last.ckpt"
    runner.save_checkpoint(path)
    batch = next(iter(data.val_dataloader()))
    expected = task.eval().classifier.probabilities(batch, VIEWS)
    assert (task.classifier.temperatures.values != 1).any()
    for loaded in (FusionTask.load_from_checkpoint(path).classifier, load(path).classifiers[0]):
        torch.testing.assert_close(loaded.probabilities(batch, VIEWS), expected)
    monkeypatch.setattr(LinearNetwork, "fit", lambda *_: pytest.fail("it was fitted already"))
    resumed = task_of(made, data, calibrate=True)
    Trainer(**_checkpointing(tmp_path) | {"max_epochs": 2}).fit(resumed, datamodule=data, ckpt_path=path)
    assert_equal(weights(resumed), weights(task))
    assert read_checkpoint(path)["state_dict"]["classifier.network.fitted"]


def _checkpointing(folder: Path) -> dict[str, Any]:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return quiet | {"accelerator": "cpu", "max_epochs": 1, "default_root_dir": folder, "limit_train_batches": 1}


@pytest.mark.parametrize("settings", [{"label_smoothing": 0.1}, {"balance": Balance("inverse")}])
def test_settings_of_another_loss_are_refused(settings: dict[str, Any], text_folder: Path) -> None:
    image, text = encoders(text_folder)
    with pytest.raises(RobustTuneError, match="LogisticRegression minimises the log-loss of the training samples"):
        FusionTask(image, text, FACTS, LogisticRegression(), beta=0.0, **settings)


def test_balanced_sampling_is_refused(text_folder: Path, tmp_path: Path) -> None:
    made = encoders(text_folder)
    data = module(tmp_path, made, modality_dropout=NO_DROPOUT)
    data.training = type(data.training)(balance="balanced")
    with pytest.raises(RobustTuneError, match="counts each training sample once: set data.training.balance to null"):
        trainer().fit(task_of(made, data), datamodule=data)


def test_features_that_are_not_finite_are_named(text_folder: Path, tmp_path: Path) -> None:
    made = encoders(text_folder)
    data = module(tmp_path, made)
    task = task_of(made, data)
    encode = task.classifier.encode

    def spoil(*arguments: Any) -> Any:
        image, text = encode(*arguments)
        text.pooled[:] = torch.inf
        return image, text

    task.classifier.encode = spoil  # type: ignore[method-assign, assignment]
    with pytest.raises(RobustTuneError, match=r"the text features of 16 training samples are not finite, the first is"):
        trainer().fit(task, datamodule=data)


def held_out_module(folder: Path, made: list[Any], val: bool = False, **splits: Any) -> ImageTextDataModule:
    """Return data of 40 samples, a quarter of which is held out for validation if there is no validation table."""
    source = source_of(folder, count=40)
    source = replace(source, test=None, val=source.val if val else None)
    settings: dict[str, Any] = {"splits": Splits(val_fraction=0.25, **splits)}
    settings |= grouped(batch_size=12, workers=0, modality_dropout=NO_DROPOUT)
    return ImageTextDataModule(source, *made, **settings)


@pytest.mark.parametrize("fusion", [LogisticRegression(), Stacking()], ids=["linear", "stacking"])
def test_samples_that_were_held_out_join_the_fit_after_they_have_judged_it(
    fusion: LogisticRegression, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is fitted to all samples; the logged validation is that of a fit without those that it judges."""
    sizes = []
    kind: Any = StackingNetwork if isinstance(fusion, Stacking) else LinearNetwork
    original = kind.fit

    def counted(network: Any, samples: Any, *rest: Any) -> Any:
        sizes.append(len(samples.label))
        return original(network, samples, *rest)

    monkeypatch.setattr(kind, "fit", counted)
    made = encoders(text_folder)
    data = held_out_module(tmp_path, made)
    image, text = made
    task = FusionTask(image, text, data.facts, fusion, beta=0.0, calibrate=True)
    runner = trainer()
    runner.fit(task, datamodule=data)
    assert sizes == [30, 40]
    logged = float(runner.callback_metrics["val/mean/accuracy"])

    few = FusionTask(image, text, data.facts, fusion, beta=0.0, calibrate=True)
    monkeypatch.setattr(type(data), "held_out_dataloader", lambda _: None)
    other = trainer()
    other.fit(few, datamodule=held_out_module(tmp_path, made))
    assert sizes == [30, 40, 30]
    assert float(other.callback_metrics["val/mean/accuracy"]) == pytest.approx(logged)
    assert not torch.equal(few.classifier.network.both.bias, task.classifier.network.both.bias)  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("changes", [{"shots": 3}, {"val": True}], ids=["few-shot", "a validation table"])
def test_few_shots_and_a_validation_table_stay_out_of_the_fit(
    changes: dict[str, Any], text_folder: Path, tmp_path: Path
) -> None:
    made = encoders(text_folder)
    data = held_out_module(tmp_path, made, **changes)
    data.setup("fit")
    assert data.held_out_dataloader() is None
