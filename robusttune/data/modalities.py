"""The modalities of a split: read images or texts one by one, and collate them into inputs of an encoder."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robusttune.corruption.dropout import sample_generator
from robusttune.corruption.noise import TextNoise
from robusttune.encoders.tokenization import Tokenizer
from robusttune.types import EncoderInputs


class Inputs(NamedTuple):
    """One modality of P samples.

    Attributes:
        values: Inputs of the modality's encoder, or its features: P rows.
        cut: P flags, True for an incomplete input: a text that was longer than the encoder accepts, or a sample with
            several images of which some cannot be read.
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
    def present_rows(self) -> NDArray[np.bool_]:
        """Return which rows have the modality, shape (N,), bool."""

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

    def present_rows(self) -> NDArray[np.bool_]:
        """Return which rows have the modality, shape (N,), bool."""
        return np.asarray(self.texts.is_valid())

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
        return [hash_text(self.read(row, view)) for row, view in inputs]

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


def hash_text(text: str) -> bytes:
    """Return the 16-byte BLAKE2b hash of a text; surrogates are allowed."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
