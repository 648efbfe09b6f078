"""Tiny tasks of every model, and batches for them, for checks that each model must pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fakes import FACTS, random_batch, tiny_image_encoder, tiny_text_encoder
from lightning.pytorch import Trainer

from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.models import (
    DCP,
    DPL,
    MMRL,
    Balance,
    Concatenation,
    CrossAttention,
    Experts,
    ImageOnly,
    LateFusion,
    LoRA,
    MoLT,
    MoRA,
    TextOnly,
)
from robusttune.models.base import FusionModel
from robusttune.tasks import FusionTask, MMRLTask, RobustTask, ZeroShotTask
from robusttune.types import Batch, Facts, Variants, View

CLASSES = ["cat", "pug", "soup"]
SMALL = MoLT(common_width=16, bilinear_width=16, fusion_width=32, cca_dim=4)
PLUS_PLUS = MMRL(space_width=8, beta=0.9, residual_rank=2, projection_rank=4)
BALANCE = Balance(weights="inverse", focal=2.0)
FUSION: dict[str, dict[str, Any]] = {
    "MoLT": {"fusion": SMALL, "beta": 0.5},
    "MoLT with momentum": {"fusion": SMALL, "beta": 0.5, "correlation_momentum": 0.9},
    "MoLT in every pattern": {"fusion": SMALL, "every_pattern": True},
    "MoLT without null tokens": {"fusion": replace(SMALL, null_tokens=0, pooling="concatenation", fusion_layers=0)},
    "Experts in every pattern": {"fusion": Experts(width=8), "every_pattern": True},
    "Experts with balanced classes": {"fusion": Experts(width=8), "balance": BALANCE, "label_smoothing": 0.1},
    "CrossAttention": {"fusion": CrossAttention(width=16, heads=2)},
    **{kind.__name__: {"fusion": kind(width=8)} for kind in (Concatenation, LateFusion, ImageOnly, TextOnly)},
}
PROMPTED: dict[str, Callable[..., RobustTask]] = {
    "MMRL": partial(MMRLTask, adapter=MMRL(space_width=8), balance=BALANCE),
    "MMRL++": partial(MMRLTask, adapter=PLUS_PLUS),
    "MMRL with new classes": MMRLTask,
    "zero-shot": partial(ZeroShotTask, templates=["a photo of a {}", "{}"]),
}
ON_TOWERS: dict[str, tuple[FusionModel, int]] = {  # settings, and the first of four layers that the network runs
    "DCP": (DCP(prompts=6, depth=2), 1),
    "DPL": (DPL(), 5),
    "MoRA": (MoRA(shared_rank=2, image_rank=2, text_rank=2), 3),
    "LoRA on towers": (LoRA(rank=2), 3),
}
EVALUATED_ONLY = ("zero-shot", "MMRL with new classes")
MODELS = ["MoLT, multi-label", *[name for name in FUSION if name != "MoLT"], *PROMPTED]
TRAINED = [model for model in MODELS if model not in EVALUATED_ONLY] + [*ON_TOWERS]
VIEWS = [View(), View(text=None), View(image=None), View(None, None), View("blur_2", "typos_4"), View("blur_2", None)]


def make_task(model: str, text_folder: Path, clip_folder: Path) -> RobustTask:
    """Return a tiny task with a Trainer on the CPU that logs every step.

    Args:
        model: Name of the model, one of `MODELS` or `ON_TOWERS`, or ``MoLT`` for single-label data.
        text_folder: Folder of a tiny text encoder.
        clip_folder: Folder of a tiny CLIP.
    """
    facts = Facts(CLASSES, FACTS.class_frequencies, multilabel=model.endswith("multi-label"))
    if model in ON_TOWERS:
        fusion, first_layer = ON_TOWERS[model]
        towers: dict[str, Any] = {"name": str(clip_folder), "first_layer": first_layer}
        task: RobustTask = FusionTask(CLIPImageEncoder(**towers), CLIPTextEncoder(**towers), facts, fusion, beta=0.0)
    elif model in PROMPTED:
        clip: dict[str, Any] = {"name": str(clip_folder), "first_layer": 3}
        task = PROMPTED[model](CLIPImageEncoder(**clip), CLIPTextEncoder(**clip), facts)
        if model.endswith("new classes"):
            task.set_classes([*CLASSES[:2], "cake", "pie"])
        task.classifier.prompts()  # type: ignore[operator]  # They are computed once, so they may wait for the device.
    else:
        settings = FUSION[model.split(",")[0]]
        task = FusionTask(tiny_image_encoder(), tiny_text_encoder(text_folder), facts, **{"beta": 0.0} | settings)
    task.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", log_every_n_steps=1)
    return task


def batch_of(task: RobustTask, cached: bool) -> Batch:
    """Return a batch with noisy variants, in which samples lack one or both modalities.

    Args:
        task: Task that the batch is for.
        cached: True for features of the task's encoders in place of images and texts.
    """
    batch = random_batch(multilabel=task.facts.multilabel)
    images = Variants(["clean", "blur_2"], torch.cat([batch.images["clean"]] * 2))  # type: ignore[list-item]
    texts = Variants(["clean", "typos_4"], batch.texts["clean"].map(lambda part: torch.cat([part] * 2)))  # type: ignore[union-attr]
    batch = replace(batch, images=images, texts=texts)
    if cached:
        for modality in (batch.images, batch.texts):
            name = "image_encoder" if modality is batch.images else "text_encoder"
            with torch.no_grad():
                modality.inputs = task.classifier.encoder(name)(modality.inputs)
    return batch


def without_inputs(batch: Batch) -> Batch:
    """Return the batch with both modalities removed from every sample."""
    absent = torch.zeros(len(batch), dtype=torch.bool)
    images, texts = (modality.map(lambda tensor: tensor[:0]) for modality in (batch.images, batch.texts))
    return replace(batch, images=images, texts=texts, image_present=absent, text_present=absent)
