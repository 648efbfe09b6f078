"""Every image, read once: what it holds, what it looks like, or why it cannot be read."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from robusttune.data.images import ImageReader, UnreadableImageError, read_image
from robusttune.regular_files import open_regular

BLOCK = 1024  # images that wait to be read
SIDE = 32  # pixels that the transform is of
WAVES = np.cos(np.pi / SIDE * np.outer(np.arange(8), np.arange(SIDE) + 0.5))  # (8, 32)


class Look(NamedTuple):
    """What was found of an image.

    Attributes:
        name: by which its reader finds it.
        digest: 16 bytes that tell what it holds, or None where it cannot be read.
        looks: its `perceptual_hash`.
        problem: why it cannot be read, or None.
    """

    name: str
    digest: bytes | None
    looks: int
    problem: str | None


def look_at(names: Iterable[str], reader: ImageReader, threads: int) -> Iterator[Look]:
    """Read images in parallel; they come in order."""
    waiting = iter(names)
    with ThreadPoolExecutor(threads) as pool:  # decoders let other threads run
        while block := list(itertools.islice(waiting, BLOCK)):  # to line all of them up would take gigabytes
            yield from pool.map(lambda name: _look(name, reader), block)


def perceptual_hash(image: Image.Image) -> int:
    """64 bits: which of the lowest 8 x 8 frequencies of a discrete cosine transform are above their median.

    That of Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2.1.
    """
    small = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0).convert("L")
    pixels = np.asarray(small, dtype=np.float64)
    low = (WAVES @ pixels @ WAVES.T).ravel().round(3)  # or rounding errors would be bits
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


def _look(name: str, reader: ImageReader) -> Look:
    try:
        if reader.digest(name) is not None:  # it is no file
            image = reader.read(name)
            return Look(name, _digest(f"{image.size}".encode() + image.tobytes()), perceptual_hash(image), None)
        with open_regular(name) as file:
            before = os.fstat(file.fileno())
            content = file.read()
        after = os.stat(name)  # noqa: PTH116
        image = read_image(BytesIO(content), name)
    except UnreadableImageError as error:
        return Look(name, None, 0, str(error))
    except OSError as error:
        return Look(name, None, 0, f"{name:.300} cannot be read as an image ({error.strerror})")
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        return Look(name, None, 0, f"{name:.300} changed while it was read")
    return Look(name, _digest(content), perceptual_hash(image), None)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
