"""From records to samples to batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robusttune.data.corruption import Corruption, add_pixel_noise, drop_modality, drop_words, sample_generator
from robusttune.data.images import UnreadableImageError, read_image
from robusttune.data.sources.base import Record
from robusttune.encoders.preprocessing import ImageTransform, Tokenizer
from robusttune.types import Batch, Draw, Facts, Sample, Split


class SampleDataset(Dataset[Sample]):
    """Samples of one split, read when drawn.

    Args:
        records: a table of `SCHEMA`.
        labels: class indices of each row, or None where the split is unlabelled.
        transform: from an image to (3, H, W) uint8.
        corruption: what is done to each sample, or None.
        seed: of corruption and random views.
    """

    def __init__(
        self,
        records: pa.Table,
        labels: list[list[int]] | None,
        transform: ImageTransform,
        corruption: Corruption | None,
        seed: int,
    ) -> None:
        self.records = records
        self.labels = None if labels is None else pa.array(labels, pa.list_(pa.int32()))
        self.transform = transform
        self.corruption = corruption
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw | int) -> Sample:
        # Lightning puts a sampler of its own in the place of ours where it is told to overfit a few batches.
        epoch, row, counted = draw if isinstance(draw, Draw) else Draw(0, draw, True)
        record = Record(*(column[row].as_py() for column in self.records.columns))
        labels = None if self.labels is None else self.labels[row].as_py()
        rng = sample_generator(self.seed, epoch, record.id)
        has_image, has_text = record.image is not None, record.text is not None
        if self.corruption is not None:
            has_image, has_text = drop_modality(has_image, has_text, self.corruption, rng)
        # What a sample loses is not even read.
        image, unreadable = self._image(record.image, rng) if record.image and has_image else (None, None)
        has_text = has_text or (unreadable is not None and record.text is not None)  # no sample loses both sides
        text = self._text(record.text, rng) if record.text and has_text else None
        return Sample(image, text, labels, record.id, counted, unreadable)

    def _image(self, path: str, rng: np.random.Generator) -> tuple[Tensor | None, str | None]:
        """The image, or why there is none."""
        try:
            picture = read_image(path)
        except UnreadableImageError as error:
            return None, str(error)
        image = self.transform(picture, seed=int(rng.integers(2**63)))
        if self.corruption is not None and self.corruption.image_noise > 0:
            image = add_pixel_noise(image, self.corruption.image_noise, rng)
        return image, None

    def _text(self, text: str, rng: np.random.Generator) -> str:
        if self.corruption is None or self.corruption.word_dropout == 0:
            return text
        return drop_words(text, self.corruption.word_dropout, rng)


class Collate:
    """Samples to a `Batch`: the images there are stacked, the texts there are tokenised together.

    Args:
        tokenizer: of the text encoder.
        size: side of the images, pixels.
        facts: of the labels.
        split: that the samples are of.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, facts: Facts, split: Split) -> None:
        self.tokenizer = tokenizer
        self.no_images = torch.zeros(0, 3, size, size, dtype=torch.uint8)
        self.facts = facts
        self.split = split

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        images = [s.image for s in samples if s.image is not None]
        texts = [(s.sample_id, s.text) for s in samples if s.text is not None]
        tokens, cut = self.tokenizer([text for _, text in texts])
        return Batch(
            images={"clean": torch.stack(images) if images else self.no_images},
            texts={"clean": tokens},
            image_present=torch.tensor([s.image is not None for s in samples]),
            text_present=torch.tensor([s.text is not None for s in samples]),
            label=self._label([s.labels for s in samples]),
            counted=torch.tensor([s.counted for s in samples]),
            sample_id=[s.sample_id for s in samples],
            split=self.split,
            unreadable=[s.unreadable for s in samples if s.unreadable is not None],
            cut=[sample_id for (sample_id, _), was_cut in zip(texts, cut, strict=True) if was_cut],
        )

    def _label(self, labels: list[list[int] | None]) -> Tensor | None:
        known = [indices for indices in labels if indices is not None]
        if len(known) < len(labels):
            return None
        if not self.facts.multilabel:
            return torch.tensor([indices[0] for indices in known])
        hot = torch.zeros(len(known), len(self.facts.class_names))
        for row, indices in zip(hot, known, strict=True):
            row[indices] = 1.0
        return hot
