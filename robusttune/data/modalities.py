"""The two sides of a split's samples: how images and texts are read one by one, and put together for an encoder."""

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
    """One side of several samples.

    Attributes:
        values: what the side's encoder takes, or has made of it.
        cut: of each sample, whether its text was longer than the encoder takes.
    """

    values: EncoderInputs
    cut: list[bool]


class Modality(ABC):
    """Images or texts of a split, by row.

    Attributes:
        views: number of random views of an input, which the epochs take in turns; None for a new one in every epoch.
    """

    views: int | None

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

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

    @property
    @abstractmethod
    def most_bytes(self) -> int:
        """Number of bytes that a sample takes in a batch, at most."""

    def view(self, epoch: int) -> int:
        """The view that an epoch takes."""
        return epoch if self.views is None else epoch % self.views


class RawModality(Modality):
    """A side before any encoder."""

    @abstractmethod
    def files(self) -> list[str]:
        """The files that it is read from, each once."""

    @abstractmethod
    def keys(self, inputs: list[tuple[int, int]], digests: Mapping[str, bytes | None]) -> list[bytes | None]:
        """What tells inputs apart: 16 bytes each, the same where two are the same, None where one cannot be read.

        Args:
            inputs: (row, view) each.
            digests: of what image files hold.
        """

    @abstractmethod
    def lengths(self, inputs: list[tuple[int, int]]) -> list[int]:
        """Of each input, (row, view), how many tokens its text has; 0 for images."""


class Pixels:
    """Images as the transform makes them.

    Args:
        records: a table of `SCHEMA`.
        reader: of the images that it names.
        transform: from an image to (3, H, W) uint8.
    """

    def __init__(self, records: pa.Table, reader: ImageReader, transform: ImageTransform) -> None:
        self.names = records["image"]
        self.reader = reader
        self.transform = transform
        self._last: tuple[tuple[int, int], Tensor] | None = None

    @cached_property
    def own_digests(self) -> dict[str, bytes | None]:
        """What the reader says of each image, None for a file; asked once, since it may have to read them."""
        return {name: self.reader.digest(name) for name in self.names.drop_null().unique().to_pylist()}

    def read(self, row: int, seed: int) -> Tensor:
        """One image; the last one is kept, since its variants are asked for one after the other."""
        if self._last is None or self._last[0] != (row, seed):
            image = self.reader.read(self.names[row].as_py())
            self._last = ((row, seed), self.transform(image, seed=seed))
        return self._last[1]


class Images(RawModality):
    """Images, read when asked for.

    Args:
        records: a table of `SCHEMA`.
        pixels: of its images.
        noise: on what the transform has made, or None.
        seed: of random views.
        views: see `Side`; without random views and noise there is one.
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
        return bool(self.names[row].is_valid)

    def files(self) -> list[str]:
        return [name for name, digest in self.pixels.own_digests.items() if digest is None]

    def read(self, row: int, epoch: int) -> Tensor:
        rng = sample_generator(self.seed, self.view(epoch), self.ids[row].as_py(), "image")
        image = self.pixels.read(row, seed=int(rng.integers(2**63)))
        return image if self.noise is None else self.noise.apply(image, rng)

    def keys(self, inputs: list[tuple[int, int]], digests: Mapping[str, bytes | None]) -> list[bytes | None]:
        names, ids = self.names.to_pylist(), self.ids.to_pylist()
        found = [self.pixels.own_digests[names[row]] or digests[names[row]] for row, _ in inputs]
        if not self.random:
            return found
        version = "" if self.noise is None else noise_version()
        made = f"{self.pixels.transform.augmentation} {self.noise} {self.seed} {version}"
        return [
            None if digest is None else _digest(f"{digest.hex()} {made} {view} {ids[row]}")
            for digest, (row, view) in zip(found, inputs, strict=True)
        ]

    def lengths(self, inputs: list[tuple[int, int]]) -> list[int]:
        return [0] * len(inputs)

    def collate(self, values: list[Tensor]) -> Inputs:
        size = self.pixels.transform.preprocessing.size
        nothing = torch.zeros(0, 3, size, size, dtype=torch.uint8)
        return Inputs(torch.stack(values) if values else nothing, [False] * len(values))

    @property
    def most_bytes(self) -> int:
        return 3 * self.pixels.transform.preprocessing.size**2


class Texts(RawModality):
    """Texts, tokenised together.

    Args:
        records: a table of `SCHEMA`.
        tokenizer: of the text encoder.
        noise: on them, or None.
        seed: of noise.
        views: see `Side`; without noise there is one.
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
        return bool(self.texts[row].is_valid)

    def files(self) -> list[str]:
        return []

    def read(self, row: int, epoch: int) -> str:
        text: str = self.texts[row].as_py()
        if self.noise is None:
            return text
        rng = sample_generator(self.seed, self.view(epoch), self.ids[row].as_py(), "text")
        return self.noise.apply(text, rng, self._other(row, rng))

    def _other(self, row: int, rng: np.random.Generator) -> str | None:
        """Another sample's text, None where there is none."""
        if len(self.present) < 2:
            return None
        place = int(rng.integers(len(self.present) - 1))
        other: str = self.texts[int(self.present[place + (self.present[place] >= row)])].as_py()
        return other

    def keys(self, inputs: list[tuple[int, int]], digests: Mapping[str, bytes | None]) -> list[bytes | None]:
        return [_digest(self.read(row, view)) for row, view in inputs]

    def lengths(self, inputs: list[tuple[int, int]]) -> list[int]:
        return self.tokenizer.lengths([self.read(row, view) for row, view in inputs])

    def collate(self, values: list[str]) -> Inputs:
        return Inputs(*self.tokenizer(values))

    @property
    def most_bytes(self) -> int:
        return 9 * self.tokenizer.max_length  # an int64 and a bool a token


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
