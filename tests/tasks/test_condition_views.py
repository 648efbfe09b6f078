"""Conditions from the data to the logits: nothing is read, damaged or encoded twice, or that is not there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from fakes import grouped, tiny_image_encoder, tiny_text_encoder, write_table
from lightning.pytorch import Trainer
from PIL import Image

from robusttune.data import ImageTextDataModule, ModalityDropout
from robusttune.data.sources import Table
from robusttune.data.stored_images import StoredImages
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import MMRL, MoLT
from robusttune.tasks import FusionTask, MMRLTask, RobustTask
from robusttune.types import Batch, Facts, Variants, View

NAMES = [
    "no_text",
    "noisy_image_blur_2",
    "missing_both_50",
    "noisy_text_typos_4+noisy_image_shot_3",
    "no_image+no_text",
]
NAMES += ["noisy_image_blur_2+no_text", "noisy_image_gaussian_5+missing_image_30"]
IMAGES, TEXTS = {"clean", "blur_2", "shot_3", "gaussian_5"}, {"clean", "typos_4"}


def source_of(folder: Path, count: int = 22) -> Table:
    """Every third image is absent, every fourth text is blank."""
    rows: list[dict[str, Any]] = []
    for i in range(count):
        Image.frombytes("RGB", (40, 30), Random(i).randbytes(3600)).save(folder / f"{i}.png")
        image, text = f"{i}.png" if i % 3 else "", "a photo of apple pie and soup and cake" if i % 4 else ""
        rows.append({"image": image, "text": text, "label": ["soup", "cake"][i % 2]})
    train, val, test = (str(write_table(folder, split, rows)) for split in ("train", "val", "test"))
    return Table(train=train, val=val, test=test)


def encoders(kind: str, text_folder: Path, clip_folder: Path) -> list[Any]:
    if kind == "mmrl":
        name = str(clip_folder)
        return [CLIPImageEncoder(name=name, first_layer=3), CLIPTextEncoder(name=name, first_layer=3)]
    return [tiny_image_encoder(), tiny_text_encoder(text_folder)]


def module(folder: Path, encoders: list[Any], **changes: Any) -> ImageTextDataModule:
    settings = {
        "batch_size": 12,
        "workers": 0,
        "conditions": NAMES,
        "modality_dropout": ModalityDropout(0.0, 0.0),
    } | changes
    image_encoder, text_encoder = encoders
    return ImageTextDataModule(source_of(folder), image_encoder, text_encoder, **grouped(**settings))


def task_of(kind: str, encoders: list[Any], facts: Facts) -> RobustTask:
    torch.manual_seed(0)
    image_encoder, text_encoder = encoders
    if kind == "mmrl":
        return MMRLTask(image_encoder, text_encoder, facts, MMRL(space_tokens=2, space_width=8)).eval()
    return FusionTask(
        image_encoder, text_encoder, facts, MoLT(common_width=16, bilinear_width=8, fusion_width=16, cca_dim=2)
    ).eval()


def test_inputs_of_a_batch_are_no_more_than_is_asked_for(text_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    """Of four variants there are a fourth of the samples; in training, which sees none of them, all."""
    made = encoders("fusion", text_folder, clip_folder)
    for size, samples in ((12, 3), (4, 1), (3, 1), (200, 22)):
        data = module(tmp_path, made, batch_size=size)
        data.setup("test")
        batches = list(data.test_dataloader())
        assert max(map(len, batches)) == samples
        assert sum(map(len, batches)) == 22
        for batch in batches:
            assert {*batch.images.names} == IMAGES
            assert {*batch.texts.names} == TEXTS
            assert len(batch.images.inputs) == 4 * int(batch.image_present.sum())
            assert len(batch.texts.inputs) == 2 * int(batch.text_present.sum())
    data = module(tmp_path, made)
    data.setup("fit")
    assert max(map(len, data.val_dataloader())) == 3
    batch = next(iter(data.train_dataloader()))
    assert (len(batch), batch.images.names, batch.texts.names) == (12, ["clean"], ["clean"])


def test_an_image_is_read_once_for_all_its_variants(
    text_folder: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, count = module(tmp_path, encoders("fusion", text_folder, clip_folder)), Counter[str]()
    data.setup("test")
    read = StoredImages.read

    def counted(self: StoredImages, name: str) -> Any:
        count[Path(name).name] += 1
        return read(self, name)

    monkeypatch.setattr(StoredImages, "read", counted)
    for batch in data.test_dataloader():
        noisy = [batch.images[variant] for variant in sorted(IMAGES - {"clean"})]
        assert all(not torch.equal(images, batch.images["clean"]) for images in noisy if len(images))
    assert count == {f"{i}.png": 1 for i in range(22) if i % 3}


def batch_of(kind: str, text_folder: Path, clip_folder: Path, folder: Path) -> tuple[RobustTask, Batch, list[View]]:
    """All samples in all variants, the model, and what it is asked for."""
    made = encoders(kind, text_folder, clip_folder)
    data = module(folder, made, batch_size=200)
    data.setup("test")
    (batch,) = data.test_dataloader()
    return task_of(kind, made, data.facts), batch, data.conditions("test").views


@pytest.mark.parametrize("kind", ["fusion", "mmrl"])
def test_a_view_is_what_its_variants_are_alone(kind: str, text_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    """Of any number of views, in any order, also of rows that lack a modality, and where a modality is never seen."""
    task, batch, views = batch_of(kind, text_folder, clip_folder, tmp_path)
    alone = {}
    with torch.no_grad():
        for view in views:
            images = Variants(["clean"], batch.images[view.image or "clean"])
            texts = Variants(["clean"], batch.texts[view.text or "clean"])
            shown = View(view.image and "clean", view.text and "clean")
            alone[view] = task.classifier.logits(replace(batch, images=images, texts=texts), [shown])[0]
        some = [view for view in views if view.text is None]
        for asked in (views, views[::-1], some, some[::-1], views[:1], views[-1:]):
            found = task.classifier.logits(batch, asked)
            assert found.shape == (len(asked), 22, 2)
            for view, logits in zip(asked, found, strict=True):
                torch.testing.assert_close(logits, alone[view], rtol=1e-4, atol=1e-4)
    assert len({tuple(logits.flatten().tolist()) for logits in alone.values()}) == len(views)


@pytest.mark.parametrize("kind", ["fusion", "mmrl"])
def test_only_what_is_there_is_encoded_and_that_once(
    kind: str, text_folder: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, batch, views = batch_of(kind, text_folder, clip_folder, tmp_path)
    rows: dict[str, list[int]] = {"image_encoder": [], "text_encoder": []}
    for name, seen in rows.items():
        encoder = task.classifier.encoder(name)
        if kind == "mmrl":
            task.classifier.prompts()  # type: ignore[operator]
            encode_lower = encoder.encode_lower

            def counted(inputs: Any, untouched: bool, encode_lower: Any = encode_lower, seen: list[int] = seen) -> Any:
                seen.append(len(inputs))
                return encode_lower(inputs, untouched)

            monkeypatch.setattr(encoder, "encode_lower", counted)
        else:
            encoder.register_forward_hook(lambda _, args, __, seen=seen: seen.append(len(args[0])))
    with torch.no_grad():
        task.classifier.logits(batch, views)
    assert rows == {"image_encoder": [4 * 14], "text_encoder": [2 * 16]}
    for seen in rows.values():
        seen.clear()
    with torch.no_grad():
        task.classifier.logits(batch, [View(None, "typos_4"), View(None, None)])
    assert rows["text_encoder"] == [16]


def test_metrics_of_a_missing_rate_cost_no_view(text_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    """A test of twenty rates asks the model for three views."""
    rates = [f"missing_both_{percent}" for percent in range(5, 105, 5)]
    made = encoders("fusion", text_folder, clip_folder)
    data = module(tmp_path, made, conditions=rates)
    task, asked = task_of("fusion", made, data.facts), []
    logits = task.metric_logits
    task.metric_logits = lambda batch, views: asked.append(list(views)) or logits(batch, views)  # type: ignore[method-assign]
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    (found,) = trainer.test(task, data, verbose=False)
    assert len({name.split("/")[1] for name in found}) == 21
    assert {len(views) for views in asked} == {3}
    assert {view for views in asked for view in views} == {View(), View(image=None), View(text=None)}
