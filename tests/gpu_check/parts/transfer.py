"""The way of a batch to the device: pinned memory, copies, and the loader's rate against that of steps."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import torch
from benchmarks.photos import write_photos
from dishes import write_text_encoder
from fakes import random_batch, random_encoded, write_table
from torch import Tensor

from gpu_check.context import Context
from gpu_check.parts.fusion import base_encoders
from gpu_check.stepping import without_trainer
from robusttune.data import ImageTextDataModule, LoaderSettings, ModalityDropout, TrainingSettings
from robusttune.data.sources import Table
from robusttune.encoders import TimmEncoder, TransformersTextEncoder
from robusttune.tasks import FusionTask
from robusttune.types import Batch, Encoded, ImageSets, Variants

SECONDS = 8.0  # of loading
WARM_UP = 8  # batches that are loaded ahead, so their time means nothing


def run(context: Context) -> None:
    """Check pinned batches, time copies, and compare the loader with the model."""
    for name, batch in batches(context).items():
        with context.case(f"pinned memory, {name}"):
            check_pinned(context, f"pinned memory, {name}", batch)
    with context.case("loader and steps"):
        loader_and_steps(context)


def batches(context: Context) -> dict[str, Batch]:
    """Return a batch of each kind of inputs."""
    side, size = (32, 8) if context.small else (224, 128)
    plain = random_batch(size, side=side, complete=True)
    images: Any = plain.images.inputs
    several = ImageSets(images.unsqueeze(1).repeat(1, 2, 1, 1, 1), torch.full((size,), 2))
    encoded: Encoded = random_encoded(size, (32,) * 4 if context.small else (768,) * 4, 768, tokens=17)
    return {
        "images and tokens": plain,
        "several images": Batch(**vars(plain) | {"images": Variants(["clean"], several)}),
        "features": Batch(**vars(plain) | {"images": Variants(["clean"], encoded)}),
    }


def check_pinned(context: Context, name: str, batch: Batch) -> None:
    """Check that a pinned batch arrives unchanged, and time copies from pinned and from other memory."""
    device = torch.device(context.device)
    pinned = batch.pin_memory() if context.on_gpu else batch
    moved = pinned.to(device)
    context.wait()
    equal = all(torch.equal(a.cpu(), b) for a, b in zip(tensors(moved), tensors(batch), strict=True))
    if not context.on_gpu:
        context.add(name, equal, "pinned memory needs a GPU")
        return
    is_pinned = all(tensor.is_pinned() for tensor in tensors(pinned))
    start = perf_counter()
    pinned.to(device)
    queued = perf_counter() - start
    times = context.medians(10, pinned=lambda: pinned.to(device), other=lambda: batch.to(device))
    size = sum(tensor.nbytes for tensor in tensors(batch))
    values: dict[str, Any] = {
        "megabytes": size / 1e6,
        "pinned_ms": times["pinned"] * 1e3,
        "not_pinned_ms": times["other"] * 1e3,
    }
    context.add(name, equal and is_pinned, **values, queued_ms=queued * 1e3)


def tensors(batch: Batch) -> list[Tensor]:
    """Return all tensors of a batch."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    batch.map(keep)
    return found


def loader_and_steps(context: Context) -> None:
    """Measure the samples a second that the loader delivers on the device, and those that a step takes."""
    data, task = photos_and_task(context)
    data.setup("fit")
    loader: Any = data.train_dataloader()
    device = torch.device(context.device)
    loaded, first, start = 0, 0, perf_counter()
    batch = None
    for number, batch in enumerate(endless(loader)):
        moved = batch.to(device)
        if number == WARM_UP:
            context.wait()
            first, start = loaded, perf_counter()
        loaded += len(moved)
        if number > WARM_UP + 1 and (context.small or perf_counter() - start > SECONDS):
            break
    context.wait()
    rate = (loaded - first) / (perf_counter() - start)
    assert batch is not None
    pinned = all(tensor.is_pinned() for tensor in tensors(batch)) if context.on_gpu else None
    without_trainer(task, context.device)
    moved = batch.to(device)

    def step() -> None:
        with torch.autocast(context.device, torch.bfloat16, enabled=context.on_gpu):
            loss = task.training_losses(moved, 1).loss
        loss.backward()

    seconds = context.medians(2 if context.small else 10, step=step)["step"]
    values = {"loader_per_second": rate, "step_per_second": len(moved) / seconds, "workers": loader.num_workers}
    ratio = rate * seconds / len(moved)
    context.add("loader and steps", pinned, "batches of the loader are pinned", **values, loader_over_step=ratio)


def endless(loader: Any) -> Iterator[Batch]:
    """Yield the batches of epoch after epoch."""
    while True:
        yield from loader


def photos_and_task(context: Context) -> tuple[ImageTextDataModule, FusionTask]:
    """Write photos with titles, and return their data module and MoLT on ViT-B/16 and BERT-base."""
    folder, count = context.folder, 24 if context.small else 256
    rows = [
        {"image": path.name, "text": f"soup of the day {n}", "label": "abc"[n % 3]}
        for n, path in enumerate(write_photos(folder, count))
    ]
    table = str(write_table(folder, "train", rows))
    image: TimmEncoder
    text: TransformersTextEncoder
    if context.small:
        write_text_encoder(folder / "bert", width=32, layers=2)
        image = TimmEncoder(name="test_vit", weights="random", layers=2, grid=2, size=32)
        text = TransformersTextEncoder(name=str(folder / "bert"), layers=2, max_length=16)
    else:
        image, text = base_encoders(context)
    data = ImageTextDataModule(
        Table(train=table, val=table),
        image,
        text,
        batch_size=2 if context.small else 64,
        loader=LoaderSettings(workers=1) if context.small else LoaderSettings(),
        training=TrainingSettings(ModalityDropout(image_dropout=0, text_dropout=0)),
    )
    return data, FusionTask(image, text, data.facts)
