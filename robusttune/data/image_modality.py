"""The images of a split: read them, transform them, add noise, and collate them into inputs of the image encoder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from robusttune.corruption.dropout import sample_generator
from robusttune.corruption.noise import ImageNoise, noise_version
from robusttune.data.images import ImageReader, UnreadableImageError
from robusttune.data.modalities import Inputs, RawModality, hash_text
from robusttune.data.row_images import image_names, row_images
from robusttune.encoders.preprocessing import ImageTransform
from robusttune.types import ImageSets


class SampleImages(NamedTuple):
    """The images of a sample that has several.

    Attributes:
        pixels: Readable images, at least one, shape (k, 3, H, W), uint8.
        unreadable: Reasons why the others cannot be read, one for each.
    """

    pixels: Tensor
    unreadable: list[str]


def unreadable_parts(value: Any) -> list[str]:
    """Return the reasons why images cannot be read that a value of `Images.read` lacks; none for a single image.

    Example:
        >>> unreadable_parts(SampleImages(torch.zeros(1, 3, 8, 8), ["b.png cannot be read"]))
        ['b.png cannot be read']
    """
    return value.unreadable if isinstance(value, SampleImages) else []


class Pixels:
    """The transformed images of a split. All noise variants of an image share it, so that it is decoded once.

    Args:
        records: Table of the samples, with the columns of `SCHEMA`.
        reader: Reader of the images that the table names.
        transform: Transform from an image to pixels, shape (3, H, W), uint8.
    """

    def __init__(self, records: pa.Table, reader: ImageReader, transform: ImageTransform) -> None:
        self.records = records
        self.reader = reader
        self.transform = transform
        self._row = -1
        self._last: dict[tuple[str, int], Tensor] = {}

    @cached_property
    def own_digests(self) -> dict[str, bytes | None]:
        """Return the reader's digest of each image by name, or None for a file of its own.

        The property is cached because a reader may have to read the images for it.
        """
        return self.reader.digests(image_names([self.records]))

    def names(self, row: int) -> list[str]:
        """Return the names of the images of a row that has an image."""
        return [self.records["image"][row].as_py(), *(self.records["more_images"][row].as_py() or [])]

    def read(self, row: int, name: str, seed: int) -> Tensor:
        """Read and transform one image. Those of the last row are kept, since its variants are read after each other.

        Args:
            row: Row of the sample.
            name: Name of the image, one of the row's.
            seed: Seed of the random augmentation.

        Returns:
            Pixels, shape (3, H, W), uint8.

        Raises:
            UnreadableImageError: The image cannot be read.
        """
        if self._row != row:
            self._row, self._last = row, {}
        if (name, seed) not in self._last:
            self._last[name, seed] = self.transform(self.reader.read(name), seed=seed)
        return self._last[name, seed]


class Images(RawModality):
    """The images of a split in one noise variant, read on demand. A row may have several.

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
        self.ids, self.present = records["id"], records["image"].is_valid()
        self.most_images = 1 + max(pc.max(pc.list_value_length(records["more_images"])).as_py() or 0, 0)
        self.pixels = pixels
        self.noise = noise
        self.seed = seed
        self.random = noise is not None or pixels.transform.augmentation is not None
        self.views = views if self.random else 1

    def __len__(self) -> int:
        return len(self.present)

    def has(self, row: int) -> bool:
        """Return whether the sample in this row has an image."""
        return bool(self.present[row].as_py())

    def present_rows(self) -> NDArray[np.bool_]:
        """Return which rows have the modality, shape (N,), bool."""
        return np.asarray(self.present)

    def files(self) -> list[str]:
        """Return the paths of the images that are files of their own, each once."""
        return [name for name, digest in self.pixels.own_digests.items() if digest is None]

    def read(self, row: int, epoch: int) -> Tensor | SampleImages:
        """Read the image of a row, or its images, transform them and add noise.

        Args:
            row: Row of a sample that has an image.
            epoch: Epoch, from 0, which selects the random view.

        Returns:
            Pixels, shape (3, H, W), uint8, of a row with one image; for others, the images that can be read.

        Raises:
            UnreadableImageError: The image cannot be read, or none of several.
        """
        names = self.pixels.names(row)
        if len(names) == 1:
            return self._read(row, 0, names[0], epoch)
        found, unreadable = [], []
        for number, name in enumerate(names):
            try:
                found.append(self._read(row, number, name, epoch))
            except UnreadableImageError as error:
                unreadable.append(str(error))
        if not found:
            raise UnreadableImageError(*unreadable)
        return SampleImages(torch.stack(found), unreadable)

    def _read(self, row: int, number: int, name: str, epoch: int) -> Tensor:
        """Return the pixels of the image with this number in the row. Each has random numbers of its own."""
        use = f"image {number}" if number else "image"
        rng = sample_generator(self.seed, self.view(epoch), self.ids[row].as_py(), use)
        image = self.pixels.read(row, name, seed=int(rng.integers(2**63)))
        return image if self.noise is None else self.noise.apply(image, rng)

    def keys(self, inputs: list[tuple[int, int]], digests: Mapping[str, bytes | None]) -> list[bytes | None]:
        """Return the cache keys of images: their digests, or hashes of digest, settings, seed, view and sample id.

        The digest of a row with several images is a hash of theirs, in any order if they are read without randomness.

        Args:
            inputs: Pairs (row, view).
            digests: Digests of the image files by path; None for an unreadable file.

        Returns:
            Key of each input, 16 bytes, or None for an unreadable image.
        """
        names, ids = row_images(self.pixels.records), self.ids.to_pylist()
        found = [self._digest([self.pixels.own_digests[n] or digests[n] for n in names[row]]) for row, _ in inputs]
        if not self.random:
            return found
        version = "" if self.noise is None else noise_version()
        settings = f"{self.pixels.transform.augmentation} {self.noise} {self.seed} {version}"
        return [
            None if digest is None else hash_text(f"{digest.hex()} {settings} {view} {ids[row]}")
            for digest, (row, view) in zip(found, inputs, strict=True)
        ]

    def _digest(self, digests: list[bytes | None]) -> bytes | None:
        """Return the digest of a row from those of its images; None if no image can be read."""
        if len(digests) == 1 or not any(digests):
            return digests[0]
        parts = ["unreadable" if digest is None else digest.hex() for digest in digests]
        return hash_text(" ".join(parts if self.random else sorted(parts)))

    def lengths(self, inputs: list[tuple[int, int]]) -> list[int]:
        """Return 0 for each image: all images have the same number of tokens."""
        return [0] * len(inputs)

    def collate(self, values: list[Tensor | SampleImages]) -> Inputs:
        """Stack the images of P rows, zero or more, to shape (P, 3, H, W), uint8; `ImageSets` if a row has several."""
        size = self.pixels.transform.preprocessing.size
        single = [value for value in values if isinstance(value, Tensor)]
        if len(single) == len(values):
            empty = torch.zeros(0, 3, size, size, dtype=torch.uint8)
            return Inputs(torch.stack(single) if single else empty, [False] * len(values))
        rows = [value.unsqueeze(0) if isinstance(value, Tensor) else value.pixels for value in values]
        counts = [len(images) for images in rows]
        return Inputs(
            ImageSets(pad_sequence(rows, batch_first=True), torch.tensor(counts)),
            [bool(unreadable_parts(value)) for value in values],
        )

    @property
    def most_bytes(self) -> int:
        """Return the number of bytes of a row with most images in a batch: three bytes per pixel."""
        return 3 * self.most_images * self.pixels.transform.preprocessing.size**2
