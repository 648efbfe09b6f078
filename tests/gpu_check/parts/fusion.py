"""Steps of MoLT and Experts on ViT-B/16 and BERT-base with random weights, with and without a feature cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from dishes import write_text_encoder
from fakes import random_batch
from torch import Tensor

from gpu_check.context import Context
from gpu_check.stepping import tiny_encoders, without_trainer
from robusttune.encoders import TimmEncoder, TransformersTextEncoder
from robusttune.models import Experts, FusionModel, MoLT
from robusttune.tasks import FusionTask
from robusttune.types import Batch, Facts, Tokens, Variants

CLASSES, TOKENS, LAYERS = 101, 24, 4
MODELS: dict[str, FusionModel] = {"MoLT": MoLT(), "Experts": Experts()}


def base_encoders(context: Context) -> tuple[TimmEncoder, TransformersTextEncoder]:
    """Return the settings of a ViT-B/16 and a BERT-base with random weights, of which one configuration is written."""
    from transformers import BertConfig

    folder = context.folder / "bert_base"
    write_text_encoder(folder, width=32, layers=1)
    BertConfig().save_pretrained(folder)
    image = TimmEncoder(name="vit_base_patch16_224.augreg_in21k", weights="random", layers=LAYERS, grid=4)
    return image, TransformersTextEncoder(name=str(folder), weights="random", layers=LAYERS)


def run(context: Context) -> None:
    """Measure both models at two batch sizes."""
    if context.small:
        folder, _ = tiny_encoders(context)
        image = TimmEncoder(name="test_vit", weights="random", layers=2, grid=2, size=32)
        encoders = image, TransformersTextEncoder(name=str(folder), layers=2, max_length=16)
    else:
        encoders = base_encoders(context)
    facts = Facts([f"{n}" for n in range(CLASSES)], [1 / CLASSES] * CLASSES, multilabel=False)
    for model, settings in MODELS.items():
        task = FusionTask(*encoders, facts, fusion=settings, beta=0.1 if model == "MoLT" else 0.0)
        without_trainer(task, context.device)
        for batch_size in (8,) if context.small else (64, 256):
            name = f"{model}, batch {batch_size}"
            with context.case(name):
                measure(context, name, task, batch_size)


def measure(context: Context, name: str, task: FusionTask, batch_size: int) -> None:
    """Time steps from inputs and from features, both on the device, and the copy of features from pinned memory."""
    device = torch.device(context.device)
    inputs = batch_of(task, batch_size).to(device)
    with torch.no_grad():
        images, texts = task.classifier.encode(inputs)
    features = replace(inputs, images=Variants(["clean"], images), texts=Variants(["clean"], texts))
    on_host = features.to(torch.device("cpu"))
    on_host = on_host.pin_memory() if context.on_gpu else on_host
    steps = {"inputs": step_of(task, inputs), "features": step_of(task, features)}
    difference = abs(float(steps["inputs"]().detach() - steps["features"]().detach()))
    times = context.medians(2 if context.small else 10, **steps, copy=lambda: on_host.to(device))
    peaks: dict[str, Any] = {
        f"{kind}_megabytes": peak / 1e6 for kind, step in steps.items() if (peak := context.peak(step)) is not None
    }
    milliseconds: dict[str, Any] = {f"{kind}_ms": seconds * 1e3 for kind, seconds in times.items()}
    speedup = times["inputs"] / (times["features"] + times["copy"])
    context.add(name, None, **milliseconds, **peaks, times_as_fast=speedup, difference_of_losses=difference)


def step_of(task: FusionTask, batch: Batch) -> Callable[[], Tensor]:
    """Return a function that takes a step in bfloat16, without an optimiser, and returns the loss."""

    def step() -> Tensor:
        task.zero_grad()
        torch.manual_seed(0)
        with torch.autocast(task.device.type, torch.bfloat16):
            loss = task.training_losses(batch, 1).loss
        loss.backward()
        return loss

    return step


def batch_of(task: FusionTask, size: int) -> Batch:
    """Return random complete samples with texts of 2 to `TOKENS` tokens."""
    side: Any = task.classifier.image_encoder.side
    lengths = torch.randint(2, 17 if side < 224 else TOKENS + 1, (size, 1))
    tokens = Tokens(torch.randint(5, 30, (size, int(lengths.max()))), torch.arange(int(lengths.max())) < lengths)
    batch = random_batch(size, side=side, complete=True)
    return replace(batch, texts=Variants(["clean"], tokens), label=torch.randint(CLASSES, (size,)))
