"""Features of all samples of a table, computed once by frozen encoders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from robusttune.data import ImageTextDataModule, LoaderSettings, ModalityDropout, TrainingSettings
from robusttune.data.sources import Table
from robusttune.encoders import TimmEncoder, TransformersImageEncoder, TransformersTextEncoder
from robusttune.encoders.preprocessing import Augmentation
from robusttune.types import Batch, Encoded


class Encoders(NamedTuple):
    """Settings of the two encoders."""

    image: TimmEncoder | TransformersImageEncoder
    text: TransformersTextEncoder


def encoded_batches(
    encoders: Encoders,
    table: Path,
    image_root: Path,
    multilabel: bool = False,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> Iterator[tuple[Batch, Encoded, Encoded]]:
    """Yield batches of a table with the features of their images and texts, in no particular order.

    Args:
        encoders: Settings of the encoders.
        table: Table with the columns `id`, `image`, `text` and `label`.
        image_root: Folder that image paths start from.
        multilabel: Whether a sample may have any number of classes.
        augmentation: Random views of the images; by default none.
        seed: Seed of the views.
    """
    data = ImageTextDataModule(
        Table(train=str(table), val=str(table), image_root=str(image_root), id_column="id", multilabel=multilabel),
        encoders.image,
        encoders.text,
        64,
        loader=LoaderSettings(workers=0),
        seed=seed,
        training=TrainingSettings(ModalityDropout(image_dropout=0, text_dropout=0), augmentation),
    )
    data.setup("fit")
    image_encoder, text_encoder = encoders.image.load(), encoders.text.load()
    image_encoder.to(memory_format=torch.channels_last)  # half the time on a CPU
    for batch in data.train_dataloader():
        images = batch.images["clean"]
        assert isinstance(images, torch.Tensor)
        images = images.contiguous(memory_format=torch.channels_last)
        yield (
            batch,
            image_encoder.encode(images, batch.image_present),
            text_encoder.encode(batch.texts["clean"], batch.text_present),
        )
