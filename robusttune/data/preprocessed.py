"""Data sets of preprocessed samples: the encoders' transforms, noise and random views for the rows of a split."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from robusttune.corruption.conditions import Conditions
from robusttune.corruption.noise import NoiseBySplit, SplitNoise
from robusttune.data.class_indices import ClassIndices
from robusttune.data.dataset import SampleDataset
from robusttune.data.image_modality import Images, Pixels
from robusttune.data.images import ImageReader
from robusttune.data.modalities import Texts
from robusttune.data.rows import Rows
from robusttune.data.settings import TrainingSettings
from robusttune.encoders import ImageEncoder, ImageTransform, TextEncoder
from robusttune.encoders.preprocessing import Preprocessing as ImagePreprocessing
from robusttune.encoders.tokenization import Tokenizer
from robusttune.types import Split


@dataclass(frozen=True)
class Preprocessing:
    """The steps from the rows of a split to the inputs of the encoders.

    Attributes:
        image_encoder: Image encoder; its preprocessing is applied to images.
        text_encoder: Text encoder; its tokenizer is applied to texts.
        training: Modality dropout and augmentation of training samples.
        noise: Noise by split.
        views: Number of random views per training input; None for a new view in every epoch.
        seed: Seed of modality dropout, noise and random views.
    """

    image_encoder: ImageEncoder
    text_encoder: TextEncoder
    training: TrainingSettings
    noise: NoiseBySplit
    views: int | None
    seed: int

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the text encoder."""
        return self.text_encoder.tokenizer()

    @cached_property
    def resizing(self) -> ImagePreprocessing:
        """Return how an image becomes the input of the image encoder."""
        return self.image_encoder.preprocessing()

    def dataset(
        self,
        rows: Rows,
        images: ImageReader,
        labels: ClassIndices | None,
        split: Split,
        noise_split: str,
        conditions: Conditions,
    ) -> SampleDataset:
        """Return the preprocessed samples of a split.

        Args:
            rows: Rows of the split.
            images: Reader of the images that the rows name.
            labels: Class indices of each row, or None for a split without labels.
            split: Split of the rows.
            noise_split: Split whose noise settings apply.
            conditions: Conditions of validation and test. Each noise in them is a further variant of the inputs.
        """
        training = split == "train"
        noise: SplitNoise = getattr(self.noise, noise_split, SplitNoise())
        more_images, more_texts = conditions.noise if split in ("val", "test") else ({}, {})
        transform = ImageTransform(self.resizing, self.training.augmentation if training else None)
        pixels = Pixels(rows, images, transform)
        views = self.views if training else 1
        return SampleDataset(
            rows,
            labels,
            {
                variant: Images(rows, pixels, image_noise, self.seed, views)
                for variant, image_noise in {"clean": noise.image, **more_images}.items()
            },
            {
                variant: Texts(rows, self.tokenizer, text_noise, self.seed, views)
                for variant, text_noise in {"clean": noise.text, **more_texts}.items()
            },
            self.training.modality_dropout if training else None,
            self.seed,
        )
