"""MoRA and LoRA through the Trainer: trained from features that are computed once, and loaded from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import grouped
from tasks.test_cache_filling import NO_DROPOUT, trainer

import robusttune
from robusttune.corruption.missing import Missing, MissingBySplit
from robusttune.data import ImageTextDataModule
from robusttune.data.sources import Shapes
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import LoRA, MoRA
from robusttune.models.low_rank import LowRankModel
from robusttune.tasks import FusionTask

METHODS = [MoRA(shared_rank=3, image_rank=2, text_rank=4), LoRA(targets=("q_proj", "out_proj"), rank=2)]
SOURCE = Shapes(train=24, val=8, test=12)
LOST = Missing(rate=0.7, type="both", ratio=0.5)


def made(method: LowRankModel, **settings: Any) -> tuple[FusionTask, ImageTextDataModule]:
    """Return a task on the demo's CLIP, which adapts the last two of its four layers, and data for it."""
    clip: dict[str, Any] = {"name": "robusttune:demo_clip", "first_layer": 3}
    encoders = CLIPImageEncoder(**clip), CLIPTextEncoder(**clip)
    given = {"batch_size": 12, "workers": 0, "dtype": "float32", "modality_dropout": NO_DROPOUT} | settings
    data = ImageTextDataModule(SOURCE, *encoders, missing=MissingBySplit(LOST, LOST, LOST), **grouped(**given))
    torch.manual_seed(0)
    return FusionTask(*encoders, data.facts, fusion=method, beta=0.0), data


@pytest.mark.parametrize("method", METHODS, ids=["MoRA", "LoRA"])
def test_features_that_are_computed_once_change_nothing(method: LowRankModel, tmp_path: Path) -> None:
    trained = []
    for folder in (None, str(tmp_path / "cache")):
        task, data = made(method, folder=folder)
        runner = trainer()
        runner.fit(task, datamodule=data)
        assert runner.global_step == 2
        measured = runner.test(task, datamodule=data, verbose=False)[0]
        trained.append((task.classifier.network.state_dict(), measured))
        released = not [*task.classifier.image_encoder.backbone.parameters()]
        assert released == (folder is not None)  # the dummies outlive the lower layers
    (plain, expected), (cached, found) = trained
    for name, tensor in plain.items():
        torch.testing.assert_close(cached[name], tensor, atol=1e-5, rtol=1e-3, msg=name)
    assert found == pytest.approx(expected, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("method", METHODS, ids=["MoRA", "LoRA"])
def test_a_loaded_model_predicts_the_same(method: LowRankModel, tmp_path: Path) -> None:
    task, data = made(method)
    runner = trainer()
    runner.fit(task, datamodule=data)
    path = tmp_path / "model.ckpt"
    runner.save_checkpoint(path)
    stored = torch.load(path, weights_only=True)["state_dict"]
    numbers = sum(tensor.numel() for name, tensor in stored.items() if name.startswith("classifier.network."))
    trainable = sum(parameter.numel() for parameter in task.classifier.network.parameters())
    assert numbers == trainable + len(task.facts.class_names)  # with the class frequencies, and no weight of the CLIP
    data.setup("test")
    table = SOURCE.read("test")
    assert table is not None
    images = [SOURCE.draw("test", number) for number in range(len(table))]
    texts = table["text"].to_pylist()
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        expected = task.eval().classifier.probabilities(batch)[0]
    shown = [
        ([None if not there else item for there, item in zip(present.tolist(), items, strict=True)])
        for present, items in ((batch.image_present, images), (batch.text_present, texts))
    ]
    found = robusttune.load(path).predict_proba(images=shown[0], texts=shown[1])
    torch.testing.assert_close(torch.as_tensor(found), expected, atol=1e-5, rtol=1e-4)
    assert not bool(batch.image_present.all() | batch.text_present.all())
