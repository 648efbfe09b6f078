"""The two sides of a split's samples: how images and texts are read one by one, and put together for an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from robusttune.data.corruption import add_pixel_noise, drop_words, sample_generator
from robusttune.data.images import read_image
from robusttune.encoders.preprocessing import ImageTransform, Tokenizer
from robusttune.types import EncoderInputs


class Inputs(NamedTuple):
    """One side of several samples.

    Attributes:
        values: what the side's encoder takes, or has made of it.
        cut: of each sample, whether its text was longer than the encoder takes.
    """

    values: EncoderInputs
    cut: list[bool]


class Side(ABC):
    """Images or texts of a split, by row.

    Attributes:
        views: number of random views of an input, which the epochs take in turns; None for a new one in every epoch.
    """

    views: int | None

    @abstractmethod
    def has(self, row: int) -> bool:
        """Whether the sample has this side."""

    @abstractmethod
    def read(self, row: int, epoch: int) -> Any:
        """The sample's own, as `collate` takes it.

        Raises:
            UnreadableImageError: it is an image that cannot be read.
        """

    @abstractmethod
    def collate(self, values: list[Any]) -> Inputs:
        """What was read of several samples, or of none."""

    def view(self, epoch: int) -> int:
        """The view that an epoch takes."""
        return epoch if self.views is None else epoch % self.views


class Images(Side):
    """Image files, read when asked for.

    Args:
        records: a table of `SCHEMA`.
        transform: from an image to (3, H, W) uint8.
        noise: standard deviation of Gaussian noise on pixels, as a share of their range.
        seed: of random views.
        views: see `Side`; without random views and noise there is one.
    """

    def __init__(
        self, records: pa.Table, transform: ImageTransform, noise: float, seed: int, views: int | None
    ) -> None:
        self.ids, self.paths = records["id"], records["image"]
        self.transform = transform
        self.noise = noise
        self.seed = seed
        self.views = views if noise > 0 or transform.augmentation is not None else 1

    def has(self, row: int) -> bool:
        return bool(self.paths[row].is_valid)

    def read(self, row: int, epoch: int) -> Tensor:
        rng = sample_generator(self.seed, self.view(epoch), self.ids[row].as_py(), "image")
        image = self.transform(read_image(self.paths[row].as_py()), seed=int(rng.integers(2**63)))
        return add_pixel_noise(image, self.noise, rng) if self.noise > 0 else image

    def collate(self, values: list[Tensor]) -> Inputs:
        size = self.transform.preprocessing.size
        nothing = torch.zeros(0, 3, size, size, dtype=torch.uint8)
        return Inputs(torch.stack(values) if values else nothing, [False] * len(values))


class Texts(Side):
    """Texts, tokenised together.

    Args:
        records: a table of `SCHEMA`.
        tokenizer: of the text encoder.
        word_dropout: probability that a word is left out.
        seed: of word dropout.
        views: see `Side`; without word dropout there is one.
    """

    def __init__(
        self, records: pa.Table, tokenizer: Tokenizer, word_dropout: float, seed: int, views: int | None
    ) -> None:
        self.ids, self.texts = records["id"], records["text"]
        self.tokenizer = tokenizer
        self.word_dropout = word_dropout
        self.seed = seed
        self.views = views if word_dropout > 0 else 1

    def has(self, row: int) -> bool:
        return bool(self.texts[row].is_valid)

    def read(self, row: int, epoch: int) -> str:
        text: str = self.texts[row].as_py()
        if self.word_dropout == 0:
            return text
        rng = sample_generator(self.seed, self.view(epoch), self.ids[row].as_py(), "text")
        return drop_words(text, self.word_dropout, rng)

    def collate(self, values: list[str]) -> Inputs:
        return Inputs(*self.tokenizer(values))
