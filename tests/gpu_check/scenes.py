"""The data and models of the shipped demo configurations, which need neither files nor a network."""

from __future__ import annotations

from pathlib import Path

from robusttune.data import CacheSettings, ImageTextDataModule, LoaderSettings
from robusttune.data.sources import Shapes
from robusttune.encoders import (
    CLIPImageEncoder,
    CLIPTextEncoder,
    ImageEncoder,
    TextEncoder,
    TransformersImageEncoder,
    TransformersTextEncoder,
)
from robusttune.models import MMRL, MoLT
from robusttune.tasks import FusionTask, MMRLTask, RobustTask

CLIP = "robusttune:demo_clip"
KINDS = ("MoLT", "MMRL")


def encoders(kind: str) -> tuple[ImageEncoder, TextEncoder]:
    """Return the encoders of ``configs/demo.yaml`` (MoLT) or ``configs/demo_mmrl.yaml`` (MMRL)."""
    if kind == "MMRL":
        return CLIPImageEncoder(name=CLIP, first_layer=2), CLIPTextEncoder(name=CLIP, first_layer=2)
    return (
        TransformersImageEncoder(name=CLIP, layers=4, grid=4),
        TransformersTextEncoder(name=CLIP, layers=4, pooling="end", max_length=32),
    )


def data_of(kind: str, samples: int, cache: Path | None, batch_size: int = 64, workers: int = 2) -> ImageTextDataModule:
    """Return the data module of a demo.

    Args:
        kind: ``MoLT`` or ``MMRL``.
        samples: Number of training samples; there are 64 samples for validation and for the test.
        cache: Folder of the feature cache, or None.
        batch_size: Number of samples per batch.
        workers: Number of loader processes.
    """
    return ImageTextDataModule(
        Shapes(train=samples, val=64, test=64),
        *encoders(kind),
        batch_size=batch_size,
        loader=LoaderSettings(workers=workers),
        cache=CacheSettings(None if cache is None else str(cache)),
    )


def task_of(kind: str, data: ImageTextDataModule) -> RobustTask:
    """Return the task of a demo, with new weights."""
    if kind == "MMRL":
        return MMRLTask(*encoders(kind), data.facts, adapter=MMRL(space_width=64), templates=["a drawing of the {}"])
    fusion = MoLT(common_width=64, bilinear_width=64, fusion_width=128, cca_dim=8)
    return FusionTask(*encoders(kind), data.facts, fusion=fusion)
