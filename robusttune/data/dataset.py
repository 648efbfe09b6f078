"""A data set that reads samples from table rows, and the function that collates them into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from robusttune.corruption.dropout import ModalityDropout, drop_modality, sample_generator
from robusttune.data.class_indices import ClassIndices
from robusttune.data.image_modality import unreadable_parts
from robusttune.data.images import UnreadableImageError
from robusttune.data.modalities import Modality
from robusttune.data.rows import Rows
from robusttune.types import Batch, Draw, Facts, Sample, Split, Variants

# Random views are numbered by epochs, and the later draws of a sample in an epoch take numbers far beyond. The stride
# is prime, so that the draws also alternate between the views of a cache.
REPEAT_STRIDE = 1_000_003


class SampleDataset(Dataset[Sample]):
    """The samples of one split. A sample's image and text are read when it is drawn.

    Args:
        records: Samples.
        labels: Class indices of each row, or None for a split without labels.
        images: Images by variant. The first variant is ``clean``; the others have noise.
        texts: Texts by variant. The first variant is ``clean``; the others have noise.
        modality_dropout: Modality dropout, applied to each sample, or None.
        seed: Seed of modality dropout.
    """

    def __init__(
        self,
        records: Rows,
        labels: ClassIndices | None,
        images: dict[str, Modality],
        texts: dict[str, Modality],
        modality_dropout: ModalityDropout | None,
        seed: int,
    ) -> None:
        self.records = records
        self.labels = labels
        self.images = images
        self.texts = texts
        self.modality_dropout = modality_dropout
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw | int) -> Sample:
        # With overfit_batches, Lightning replaces our sampler by one that yields plain row numbers.
        epoch, row, counted, repeat = draw if isinstance(draw, Draw) else Draw(0, draw, True)
        epoch += REPEAT_STRIDE * repeat  # Another view and another modality dropout than in the earlier draws.
        sample_id = self.records.value("id", row)
        labels = None if self.labels is None else self.labels.row(row)
        image_kept, text_kept = has_image, has_text = self.images["clean"].has(row), self.texts["clean"].has(row)
        if self.modality_dropout is not None and self.modality_dropout.is_active:
            rng = sample_generator(self.seed, epoch, sample_id, "modality")
            image_kept, text_kept = drop_modality(has_image, has_text, self.modality_dropout, rng)
        # A modality that the sample loses is not read, which saves the time to decode it.
        image, unreadable = self._image(row, epoch) if image_kept else ({}, [])
        text_kept = text_kept or (image_kept and not image and has_text)  # no sample loses both modalities
        text = {variant: data.read(row, epoch) for variant, data in self.texts.items()} if text_kept else {}
        return Sample(image, text, labels, sample_id, counted, unreadable)

    def complete(self) -> SampleDataset:
        """Return the same samples without modality dropout."""
        other = copy(self)
        other.modality_dropout = None
        return other

    def _image(self, row: int, epoch: int) -> tuple[dict[str, Any], list[str]]:
        """Return the image in every variant, empty if it is unreadable, and the reasons why files are unreadable."""
        try:
            image = {variant: data.read(row, epoch) for variant, data in self.images.items()}
        except UnreadableImageError as error:
            return {}, [*error.args]
        return image, unreadable_parts(image["clean"])


class Collate:
    """A function that collates samples into a `Batch`.

    Absent images and texts are left out, so the inputs of a modality have fewer rows than the batch. The rows of all
    variants follow each other: first those of ``clean``, then those of the next variant.

    Args:
        images: Images of the split by variant, in the order of `SampleDataset`.
        texts: Texts of the split by variant, in the order of `SampleDataset`.
        facts: Class names and the kind of task, which determine the format of the labels.
        split: Split of the samples.
    """

    def __init__(
        self, images: Mapping[str, Modality], texts: Mapping[str, Modality], facts: Facts, split: Split
    ) -> None:
        self.images = images
        self.texts = texts
        self.facts = facts
        self.split = split

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        # All variants of a modality are collated in the same way, so the clean one can do it for all.
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
            unreadable=[reason for s in samples for reason in s.unreadable] + _incomplete(samples, images.cut),
            # The rows of the clean variant come first. Cuts of the noisy variants are not reported.
            cut=[sample_id for sample_id, was_cut in zip(with_text, texts.cut, strict=False) if was_cut],
            unreadable_rows=[row for row, sample in enumerate(samples) for _ in sample.unreadable],
        )

    def _label(self, labels: list[list[int] | None]) -> Tensor | None:
        """Return class indices (B,) int64, or (B, C) float 0/1 in multi-label data; None if any is unlabelled."""
        known = [indices for indices in labels if indices is not None]
        if len(known) < len(labels):
            return None
        if not self.facts.multilabel:
            return torch.tensor([indices[0] for indices in known])
        multi_hot = torch.zeros(len(known), len(self.facts.class_names))
        for row, indices in zip(multi_hot, known, strict=True):
            row[indices] = 1.0
        return multi_hot


def _incomplete(samples: Sequence[Sample], flags: list[bool]) -> list[str]:
    """Return a message for each sample whose cached features lack one of its images.

    Args:
        samples: Samples of a batch.
        flags: Flags of the samples that have an image, True if one of several images is unreadable. If the images were
            read just now, the sample has the reason.
    """
    with_image = [sample for sample in samples if sample.image]
    return [
        f"an image of the sample {sample.sample_id!r} could not be read when its features were computed"
        for sample, flag in zip(with_image, flags, strict=False)  # the rows of the clean variant come first
        if flag and not sample.unreadable
    ]
