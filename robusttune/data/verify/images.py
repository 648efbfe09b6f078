"""Reading of every image once, to get a digest of its content and a perceptual hash, or the reason of a failure."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from robusttune.data.images import ImageReader, UnreadableImageError, read_image

BLOCK = 1024  # images queued at a time
EDGE = 32  # pixels; edge of the image that is transformed
WAVES = np.cos(np.pi / EDGE * np.outer(np.arange(8), np.arange(EDGE) + 0.5))  # basis of the DCT, (8, 32)


class ImageCheck(NamedTuple):
    """The result of reading an image.

    Attributes:
        name: Image name in the records, which the source's `ImageReader` understands.
        digest: Hash of the content, 16 bytes, or None where the image cannot be read.
        perceptual_hash: `perceptual_hash` of the image, or 0 where it cannot be read.
        problem: Reason why the image cannot be read, or None.

    Example:
        >>> ImageCheck("a.jpg", None, 0, "a.jpg cannot be read as an image").digest is None
        True
    """

    name: str
    digest: bytes | None
    perceptual_hash: int
    problem: str | None


def check_images(names: Iterable[str], reader: ImageReader, threads: int) -> Iterator[ImageCheck]:
    """Read images in parallel threads, and yield the results in order.

    Args:
        names: Image names.
        reader: Reader of the images.
        threads: Number of threads.
    """
    waiting = iter(names)
    with ThreadPoolExecutor(threads) as pool:  # image decoders release the GIL
        while block := list(itertools.islice(waiting, BLOCK)):  # queueing all would take gigabytes
            yield from pool.map(lambda name: _check_image(name, reader), block)


def row_digest(names: Sequence[str], checks: Mapping[str, ImageCheck]) -> bytes | None:
    """Return the digest of a row's image, or a hash of those of several, in any order; None if one cannot be read.

    Args:
        names: Names of the row's images.
        checks: Result of reading each image, by name.

    Example:
        >>> row_digest(["a.jpg"], {"a.jpg": ImageCheck("a.jpg", bytes(16), 0, None)}) == bytes(16)
        True
    """
    digests = [checks[name].digest if name in checks else None for name in names]
    known = sorted(digest for digest in digests if digest is not None)
    if len(known) < max(len(digests), 1):
        return None
    return known[0] if len(known) == 1 else _digest(b"".join(known))


def perceptual_hash(image: Image.Image) -> int:
    """Return the perceptual hash of an image, an integer of 64 bits.

    Each bit says whether one of the lowest 8 x 8 frequencies of a discrete cosine transform is above their median. The
    median leaves out the constant component. Images that look alike have hashes that differ in few bits.

    Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2.1.

    Example:
        >>> image = Image.linear_gradient("L")
        >>> (perceptual_hash(image) ^ perceptual_hash(image.resize((128, 128)))).bit_count()
        0
    """
    small = image.resize((EDGE, EDGE), Image.Resampling.BICUBIC, reducing_gap=2.0).convert("L")
    pixels = np.asarray(small, dtype=np.float64)
    low = (WAVES @ pixels @ WAVES.T).ravel().round(3)  # keeps rounding errors out of the bits
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


def _check_image(name: str, reader: ImageReader) -> ImageCheck:
    """Read one image; failures are returned as an `ImageCheck` with a problem."""
    try:
        content = reader.content(name)
        image = reader.read(name) if content is None else read_image(BytesIO(content), name)
    except UnreadableImageError as error:
        return ImageCheck(name, None, 0, str(error))
    if content is None:
        content = f"{image.size}".encode() + image.tobytes()
    return ImageCheck(name, _digest(content), perceptual_hash(image), None)


def _digest(content: bytes) -> bytes:
    """Return a 16-byte hash."""
    return hashlib.blake2b(content, digest_size=16).digest()
