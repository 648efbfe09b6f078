"""The two modalities of a split: read images and texts one by one, and collate them into inputs of an encoder."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from robusttune.corruption.dropout import sample_generator
from robusttune.corruption.noise import ImageNoise, TextNoise, noise_version
from robusttune.data.images import ImageReader
from robusttune.encoders.preprocessing import ImageTransform
from robusttune.encoders.tokenization import Tokenizer
from robusttune.types import EncoderInputs


class Inputs(NamedTuple):
    """One modality of P samples.

    Attributes:
        values: Inputs of the modality's encoder, or its features: P rows.
        cut: P flags, True for a text that was longer than the encoder accepts.
    """

    values: EncoderInputs
    cut: list[bool]


class Modality(ABC):
    """The images or the texts of a split, by row.

    Attributes:
        views: Number of random views of an input, which the epochs use alternately; None for a new view in every epoch.
    """

    views: int | None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def has(self, row: int) -> bool:
        """Return whether the sample in this row has the modality."""

    @abstractmethod
    def read(self, row: int, epoch: int) -> Any:
        """Read the image or text of a row.

        Args:
            row: Row of a sample that has the modality.
            epoch: Epoch, from 0, which selects the random view.

        Returns:
            Value that `collate` accepts.

        Raises:
            UnreadableImageError: The image cannot be read.
        """

    @abstractmethod
    def collate(self, values: list[Any]) -> Inputs:
        """Collate values that `read` returned, zero or more, into inputs of the encoder."""

    @property
    @abstractmethod
    def most_bytes(self) -> int:
        """Return the greatest number of bytes of one sample in a batch."""

    def view(self, epoch: int) -> int:
        """Return the index of the view that an epoch uses."""
        return epoch if self.views is None else epoch % self.views


class RawModality(Modality):
    """A modality before its encoder: pixels or texts."""

    @abstractmethod
    def files(self) -> list[str]:
        """Return the paths of the image files, each once; none if the images are not files of their own."""

    @abstractmethod
    def keys(self, inputs: list[tuple[int, int]], digests: Mapping[str, bytes | None]) -> list[bytes | None]:
        """Return the cache keys of inputs: 16 bytes each, equal for equal inputs; None for an unreadable one.

        Args:
            inputs: Pairs (row, view).
            digests: Digests of the image files by path; None for an unreadable file.
        """

    @abstractmethod
    def lengths(self, inputs: list[tuple[int, int]]) -> list[int]:
        """Return the number of tokens of each text; 0 for each image.

        Args:
            inputs: Pairs (row, view).
        """


class Pixels:
    """The transformed images of a split. All noise variants of an image share it, so that it is decoded once.

    Args:
        records: Table of the samples, with the columns of `SCHEMA`.
        reader: Reader of the images that the table names.
        transform: Transform from an image to pixels, shape (3, H, W), uint8.
    """

    def __init__(self, records: pa.Table, reader: ImageReader, transform: ImageTransform) -> None:
        self.names = records["image"]
        self.reader = reader
        self.transform = transform
        self._last: tuple[tuple[int, int], Tensor] | None = None

    @cached_property
    def own_digests(self) -> dict[str, bytes | None]:
        """Return the reader's digest of each image by name, or None for a file of its own.

        The property is cached because a reader may have to read the images for it.
        """
        return self.reader.digests(self.names.drop_null().unique().to_pylist())

    def read(self, row: int, seed: int) -> Tensor:
        """Read and transform one image. The last result is kept, since its variants are read one after the other.

        Args:
            row: Row of the sample.
            seed: Seed of the random augmentation.

        Returns:
            Pixels, shape (3, H, W), uint8.

        Raises:
            UnreadableImageError: The image cannot be read.
        """
        if self._last is None or self._last[0] != (row, seed):
            image = self.reader.read(self.names[row].as_py())
            self._last = ((row, seed), self.transform(image, seed=seed))
        return self._last[1]


class Images(RawModality):
    """The images of a split in one noise variant, read on demand.

    Args:
        records: Table of the samples, with the columns of `SCHEMA`.
        pixels: Transformed images of the same table.
        noise: Noise on the transformed images, or None.
        seed: Seed of the augmentation and the noise.
        views: Number of random views, see `Modality`; ignored without augmentation and noise, since there is one view.
    """

    def __init__(
        self,
        records: pa.Table,
        pixels: Pixels,
        noise: ImageNoise | None,
        seed: int,
        views: int | None,
    ) -> None:
        self.ids, self.names = records["id"], records["image"]
        self.pixels = pixels
        self.noise = noise
        self.seed = seed
        self.random = noise is not None or pixels.transform.augmentation is not None
        self.views = views if self.random else 1

    def __len__(self) -> int:
        return len(self.names)

    def has(self, row: int) -> bool:
        """Return whether the sample in this row has an image."""
        return bool(self.names[row].is_valid)

    def files(self) -> list[str]:
        """Return the paths of the images that are files of their own, each once."""
        return [name for name, digest in self.pixels.own_digests.items() if digest is None]

    def read(self, row: int, epoch: int) -> Tensor:
        """Read an image, transform it and add noise.

        Args:
            row: Row of a sample that has an image.
            epoch: Epoch, from 0, which selects the random view.

        Returns:
            Pixels, shape (3, H, W), uint8.

        Raises:
            UnreadableImageError: The image cannot be read.
        """
        rng = sample_generator(self.seed, self.view(epoch), self.ids[row].as_py(), "image")
        image = self.pixels.read(row, seed=int(rng.integers(2**63)))
        return image if self.noise is None else self.noise.apply(image, rng)

    def keys(self, inputs: list[tuple[int, int]], digests: Mapping[str, bytes | None]) -> list[bytes | None]:
        """Return the cache keys of images: their digests, or hashes of digest, settings, seed, view and sample id.

        Args:
            inputs: Pairs (row, view).
            digests: Digests of the image files by path; None for an unreadable file.

        Returns:
            Key of each input, 16 bytes, or None for an unreadable image.
        """
        names, ids = self.names.to_pylist(), self.ids.to_pylist()
        found = [self.pixels.own_digests[names[row]] or digests[names[row]] for row, _ in inputs]
        if not self.random:
            return found
        version = "" if self.noise is None else noise_version()
        settings = f"{self.pixels.transform.augmentation} {self.noise} {self.seed} {version}"
        return [
            None if digest is None else _digest(f"{digest.hex()} {settings} {view} {ids[row]}")
            for digest, (row, view) in zip(found, inputs, strict=True)
        ]

    def lengths(self, inputs: list[tuple[int, int]]) -> list[int]:
        """Return 0 for each image: all images have the same number of tokens."""
        return [0] * len(inputs)

    def collate(self, values: list[Tensor]) -> Inputs:
        """Stack P images, zero or more, to shape (P, 3, H, W), uint8."""
        size = self.pixels.transform.preprocessing.size
        empty = torch.zeros(0, 3, size, size, dtype=torch.uint8)
        return Inputs(torch.stack(values) if values else empty, [False] * len(values))

    @property
    def most_bytes(self) -> int:
        """Return the number of bytes of an image in a batch: three bytes per pixel."""
        return 3 * self.pixels.transform.preprocessing.size**2


class Texts(RawModality):
    """The texts of a split in one noise variant, tokenised batch by batch.

    Args:
        records: Table of the samples, with the columns of `SCHEMA`.
        tokenizer: Tokenizer of the text encoder.
        noise: Noise on the texts, or None.
        seed: Seed of the noise.
        views: Number of random views, see `Modality`; ignored without noise, since there is one view.
    """

    def __init__(
        self, records: pa.Table, tokenizer: Tokenizer, noise: TextNoise | None, seed: int, views: int | None
    ) -> None:
        self.ids, self.texts = records["id"], records["text"]
        self.tokenizer = tokenizer
        self.noise = noise
        self.present = np.flatnonzero(self.texts.is_valid())
        self.seed = seed
        self.views = 1 if noise is None else views

    def __len__(self) -> int:
        return len(self.texts)

    def has(self, row: int) -> bool:
        """Return whether the sample in this row has a text."""
        return bool(self.texts[row].is_valid)

    def files(self) -> list[str]:
        """Return an empty list: texts are in the table, not in files of their own."""
        return []

    def read(self, row: int, epoch: int) -> str:
        """Return the text of a row, with noise.

        Args:
            row: Row of a sample that has a text.
            epoch: Epoch, from 0, which selects the random view.
        """
        text: str = self.texts[row].as_py()
        if self.noise is None:
            return text
        rng = sample_generator(self.seed, self.view(epoch), self.ids[row].as_py(), "text")
        return self.noise.apply(text, rng, self._other(row, rng))

    def _other(self, row: int, rng: np.random.Generator) -> str | None:
        """Draw the text of another sample; return None if no other sample has a text."""
        if len(self.present) < 2:
            return None
        index = int(rng.integers(len(self.present) - 1))
        other: str = self.texts[int(self.present[index + (self.present[index] >= row)])].as_py()
        return other

    def keys(self, inputs: list[tuple[int, int]], digests: Mapping[str, bytes | None]) -> list[bytes | None]:
        """Return the cache keys of texts: 16-byte hashes of the texts with noise.

        Args:
            inputs: Pairs (row, view).
            digests: Not used, since texts are not files.
        """
        return [_digest(self.read(row, view)) for row, view in inputs]

    def lengths(self, inputs: list[tuple[int, int]]) -> list[int]:
        """Return the number of tokens of each text.

        Args:
            inputs: Pairs (row, view).
        """
        return self.tokenizer.lengths([self.read(row, view) for row, view in inputs])

    def collate(self, values: list[str]) -> Inputs:
        """Tokenise texts, zero or more, and pad them to the longest."""
        return Inputs(*self.tokenizer(values))

    @property
    def most_bytes(self) -> int:
        """Return the number of bytes of the longest possible text in a batch."""
        return 9 * self.tokenizer.max_length  # each token takes an int64 (its id) and a bool (its mask)


def _digest(text: str) -> bytes:
    """Return the 16-byte BLAKE2b hash of a text; surrogates are allowed."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
