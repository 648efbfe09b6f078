"""From rows to samples to batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robusttune.corruption.dropout import ModalityDropout, drop_modality, sample_generator
from robusttune.data.images import UnreadableImageError
from robusttune.data.modalities import Modality
from robusttune.types import Batch, Draw, Facts, Sample, Split, Variants


class SampleDataset(Dataset[Sample]):
    """Samples of one split, read when drawn.

    Args:
        records: a table of `SCHEMA`.
        labels: class indices of each row, or None where the split is unlabelled.
        images: variant -> their images; ``clean`` comes first.
        texts: variant -> their texts, likewise.
        corruption: whose modality dropout each sample undergoes, or None.
        seed: of modality dropout.
    """

    def __init__(
        self,
        records: pa.Table,
        labels: list[list[int]] | None,
        images: dict[str, Modality],
        texts: dict[str, Modality],
        corruption: ModalityDropout | None,
        seed: int,
    ) -> None:
        self.records = records
        self.labels = None if labels is None else pa.array(labels, pa.list_(pa.int32()))
        self.images = images
        self.texts = texts
        self.corruption = corruption
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw | int) -> Sample:
        # Lightning puts a sampler of its own in the place of ours where it is told to overfit a few batches.
        epoch, row, counted = draw if isinstance(draw, Draw) else Draw(0, draw, True)
        sample_id = self.records["id"][row].as_py()
        labels = None if self.labels is None else self.labels[row].as_py()
        image_kept, text_kept = has_image, has_text = self.images["clean"].has(row), self.texts["clean"].has(row)
        if self.corruption is not None:
            rng = sample_generator(self.seed, epoch, sample_id, "modality")
            image_kept, text_kept = drop_modality(has_image, has_text, self.corruption, rng)
        # What a sample loses is not even read.
        image, unreadable = self._image(row, epoch) if image_kept else ({}, None)
        text_kept = text_kept or (unreadable is not None and has_text)  # no sample loses both sides
        text = {variant: side.read(row, epoch) for variant, side in self.texts.items()} if text_kept else {}
        return Sample(image, text, labels, sample_id, counted, unreadable)

    def _image(self, row: int, epoch: int) -> tuple[dict[str, Any], str | None]:
        """The image in every variant, or why there is none."""
        try:
            return {variant: side.read(row, epoch) for variant, side in self.images.items()}, None
        except UnreadableImageError as error:
            return {}, str(error)


class Collate:
    """Samples to a `Batch`: what there is of each variant of each side is put together.

    Args:
        images: variant -> images of the split.
        texts: variant -> texts of the split.
        facts: of the labels.
        split: that the samples are of.
    """

    def __init__(
        self, images: Mapping[str, Modality], texts: Mapping[str, Modality], facts: Facts, split: Split
    ) -> None:
        self.images = images
        self.texts = texts
        self.facts = facts
        self.split = split

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        # All variants of a side are put together alike.
        images = self.images["clean"].collate([s.image[name] for name in self.images for s in samples if s.image])
        texts = self.texts["clean"].collate([s.text[name] for name in self.texts for s in samples if s.text])
        with_text = [s.sample_id for s in samples if s.text]
        return Batch(
            images=Variants([*self.images], images.values),
            texts=Variants([*self.texts], texts.values),
            image_present=torch.tensor([bool(s.image) for s in samples]),
            text_present=torch.tensor([bool(s.text) for s in samples]),
            label=self._label([s.labels for s in samples]),
            counted=torch.tensor([s.counted for s in samples]),
            sample_id=[s.sample_id for s in samples],
            split=self.split,
            unreadable=[s.unreadable for s in samples if s.unreadable is not None],
            cut=[sample_id for sample_id, was_cut in zip(with_text, texts.cut, strict=False) if was_cut],  # clean
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
