"""Every image, read once: what it holds, what it looks like, or why it cannot be read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from robusttune.data.images import ImageReader, UnreadableImageError, read_image


class Look(NamedTuple):
    """What was found of an image.

    Attributes:
        name: by which its reader finds it.
        digest: 16 bytes that tell what it holds, or None where it cannot be read.
        looks: 64 bits that are nearly the same for pictures that look nearly the same.
        problem: why it cannot be read, or None.
    """

    name: str
    digest: bytes | None
    looks: int
    problem: str | None


def look_at(names: Iterable[str], reader: ImageReader, threads: int) -> Iterator[Look]:
    """Read images in parallel; they come in order."""
    with ThreadPoolExecutor(threads) as pool:  # decoders let other threads run
        yield from pool.map(lambda name: _look(name, reader), names)


def difference_hash(image: Image.Image) -> int:
    """64 bits: on a grid of 8 rows of 9, where it gets brighter from left to right."""
    grid = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return int.from_bytes(np.packbits(grid[:, 1:] > grid[:, :-1]).tobytes(), "big")


def _look(name: str, reader: ImageReader) -> Look:
    try:
        digest = reader.digest(name)
        if digest is not None:
            return Look(name, digest, difference_hash(reader.read(name)), None)
        before = Path(name).stat()
        content = Path(name).read_bytes()
        after = Path(name).stat()
        image = read_image(BytesIO(content), name)
    except UnreadableImageError as error:
        return Look(name, None, 0, str(error))
    except OSError as error:
        return Look(name, None, 0, f"{name} cannot be read ({error.strerror})")
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        return Look(name, None, 0, f"{name} changed while it was read")
    return Look(name, hashlib.blake2b(content, digest_size=16).digest(), difference_hash(image), None)
