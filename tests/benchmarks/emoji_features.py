"""What the two frozen encoders of `configs/emoji.yaml` make of emoji, in five folds that share none of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarks.robustness import text_encoder
from numpy.typing import NDArray

from robusttune.data import Corruption, ImageTextDataModule
from robusttune.data.sources import Table
from robusttune.encoders import TimmEncoder, TransformersTextEncoder
from robusttune.encoders.preprocessing import Augmentation
from robusttune.models.attention import masked_mean
from robusttune.models.base import layer_norm
from robusttune.types import Encoded

STYLES = ("noto", "fluent3d")
FOLDS = 5
CONDITIONS = ("complete", "no_image", "no_text")


def fold_of(row: dict[str, Any]) -> int:
    """By the emoji, whatever the style."""
    return int(hashlib.blake2b(row["id"].split("/")[1].encode(), digest_size=4).hexdigest(), 16) % FOLDS


def rows_of(data: Path, style: str) -> Iterator[dict[str, Any]]:
    """All rows of a style, whatever split they are in."""
    for split in ("train", "val", "test"):
        yield from map(json.loads, (data / f"{style}_{split}.jsonl").open())


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Features(NamedTuple):
    """Of one style: N rows each, in the order of their ids.

    Attributes:
        sides: by name of the features, for image and text: (N, d).
        label: (N,).
        emoji: N.
        fold: (N,).
    """

    sides: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    label: NDArray[np.int64]
    emoji: list[str]
    fold: NDArray[np.int64]


def features(
    table: Path, images: Path, weights: Path, augmentation: Augmentation | None = None, seed: int = 0
) -> Features:
    """What the encoders make of a table.

    That is what they pool (``pooled``), with the mean of each chosen layer (``all``), and as an `Expert` normalises
    these (``normalised``).

    Args:
        table: of emoji.
        images: folder that its paths start from.
        weights: of the image encoder.
        augmentation: for random views of the images.
        seed: of the views.
    """
    image_settings = TimmEncoder(
        name="mobilenetv2_100",
        weights=str(weights),
        model_args={"pad_type": "same"},
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        crop=1.0,
        layers=4,
        grid=4,
    )
    text_settings = TransformersTextEncoder(
        name=text_encoder(), weights="pretrained", layers=4, pooling="mean", max_length=32
    )
    source = Table(train=str(table), val=str(table), image_root=str(images), id_column="id")
    whole = Corruption(image_dropout=0, text_dropout=0)
    data = ImageTextDataModule(
        source, image_settings, text_settings, 64, workers=0, seed=seed, corruption=whole, augmentation=augmentation
    )
    data.setup("fit")
    image_encoder, text_encoder_ = image_settings.load(), text_settings.load()
    found, labels, ids = [], [], []
    for batch in data.train_dataloader():
        encoded = (
            image_encoder.encode(batch.images["clean"], batch.image_present),
            text_encoder_.encode(batch.texts["clean"], batch.text_present),
        )
        found.append([(side.pooled, torch.cat(parts(side), 1), normalised(side)) for side in encoded])
        labels.append(batch.label)
        ids += batch.sample_id
    order = sorted(range(len(ids)), key=ids.__getitem__)
    sides: dict[str, Any] = {
        name: tuple(torch.cat([batch[side][kind] for batch in found]).numpy()[order] for side in (0, 1))
        for kind, name in enumerate(("pooled", "all", "normalised"))
    }
    fold = np.array([fold_of({"id": ids[row]}) for row in order])
    return Features(sides, torch.cat(labels).numpy()[order], [ids[row].split("/")[1] for row in order], fold)


def parts(side: Encoded) -> list[torch.Tensor]:
    """(B, d) each."""
    return [side.pooled, *(masked_mean(t, m) for t, m in zip(side.tokens, side.mask, strict=True))]


def normalised(side: Encoded) -> torch.Tensor:
    return torch.cat([layer_norm(part) for part in parts(side)], 1)
