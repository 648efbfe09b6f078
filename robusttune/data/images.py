"""Image files: which are there, which can be read, and as what."""

from __future__ import annotations

import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from robusttune.errors import RobustTuneError
from robusttune.ranks import on_rank_zero, rank, world_size
from robusttune.regular_files import open_regular

log = logging.getLogger(__name__)

# Pillow decodes these by itself. Of others it starts programs (Ghostscript for EPS), opens files within files, or asks
# plug-ins.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "MPO")
HEAD = 256  # bytes that a format is recognised by
# What Pillow does not recognise, by the bytes that such a file has in its beginning.
SIGNATURES = {b"ftyphei": "HEIC", b"ftyphev": "HEIC", b"ftypmif1": "HEIC", b"ftypmsf1": "HEIC", b"<svg": "SVG"}
SIGNATURES |= {b"ftypavif": "AVIF", b"%PDF": "PDF"}


class UnreadableImageError(Exception):
    """Says which file cannot be read as an image, and why."""


class ImageReader(ABC):
    """Reads the images of a source, by the names that its records give them."""

    @abstractmethod
    def missing(self, names: Iterable[str | None]) -> list[str]:
        """The names that no image has, in order, without reading any."""

    @abstractmethod
    def read(self, name: str) -> Image.Image:
        """An image as RGB.

        Raises:
            UnreadableImageError: it cannot be read.
        """

    @abstractmethod
    def digest(self, name: str) -> bytes | None:
        """16 bytes that tell it from other images, also where it cannot be read, or None where it is a file."""


class ImageFiles(ImageReader):
    """Image files, named by their paths."""

    def missing(self, names: Iterable[str | None]) -> list[str]:
        return missing_files(names)

    def read(self, name: str) -> Image.Image:
        return read_image(name)

    def digest(self, name: str) -> None:
        return None


def read_image(file: str | Path | BytesIO, called: str = "") -> Image.Image:
    """An image file as RGB: its first frame, upright as its EXIF orientation says, what is transparent on white.

    Args:
        file: its path, or what it holds.
        called: what it is called where something is wrong with it, if not by its path.

    Raises:
        UnreadableImageError: for whatever reason it cannot be read.
    """
    content: AbstractContextManager[IO[bytes]]
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata, which do not change the pixels, and of sizes that it does not refuse yet.
            warnings.simplefilter("ignore")
            content = nullcontext(file) if isinstance(file, BytesIO) else open_regular(file)
            with content as opened, open_image(opened) as image:
                image.load()
                _turn_upright(image)
                return _as_rgb(image)
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise UnreadableImageError(f"{called or file!s:.300} cannot be read as an image ({_reason(error)})") from None


def open_image(content: IO[bytes]) -> Image.Image:
    """Open an image whose format is one of `FORMATS`, whatever its file is called. No program is started.

    Raises:
        UnidentifiedImageError: it has another format, which the message names, or none.
    """
    try:
        return Image.open(content, formats=_formats())
    except UnidentifiedImageError:
        content.seek(0)
        raise UnidentifiedImageError(_what_else(content.read(HEAD))) from None


@cache
def image_endings() -> tuple[str, ...]:
    """Return the endings of files of `FORMATS`, such as ``.jpg``, in lower case."""
    return tuple(ending for ending, name in Image.registered_extensions().items() if name in FORMATS)


def missing_files(paths: Iterable[str | None]) -> list[str]:
    """The paths that do not exist, in order, without opening any; each folder is listed once."""
    listed: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        if path is None:
            continue
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = _names_in(folder or ".")
        if name not in listed[folder]:
            missing.append(path)
    return missing


def unreadable_images(names: Iterable[str], reader: ImageReader, threads: int) -> list[str]:
    """What is wrong with each image that cannot be read, in order; every one is decoded."""

    def problem(name: str) -> str | None:
        try:
            reader.read(name)
        except UnreadableImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(threads) as pool:  # decoders let other threads run
        return [found for found in pool.map(problem, names) if found is not None]


def refuse_unreadable(names: Sequence[str], reader: ImageReader, found: list[str], threads: int) -> NoReturn:
    """One image cannot be read: look through all of them, so that they can be mended at once.

    The ranks share the work, and every rank must take part.

    Args:
        names: of all images.
        reader: of them.
        found: what is wrong with those that are known already on this rank.
        threads: that read on this rank.

    Raises:
        RobustTuneError: always; it tells how many there are, and the first of them.
    """
    for problem in found[:1]:
        log.warning("%s; the other %d images are being looked through", problem, len(names) - 1)

    def refuse(parts: list[set[str]]) -> None:
        problems = sorted(set().union(*parts))
        raise RobustTuneError(
            f"{len(problems)} of {len(names)} image files cannot be read: {'; '.join(problems[:3])}"
            f"{'; ...' * (len(problems) > 3)}: mend or remove them, or set data.unreadable to absent"
        )

    on_rank_zero({*unreadable_images(names[rank() :: world_size()], reader, threads), *found}, refuse)
    raise AssertionError("rank 0 refuses")


def _names_in(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return set()


def _turn_upright(image: Image.Image) -> None:
    with suppress(Exception):  # metadata that cannot be understood say nothing of how it was held
        ImageOps.exif_transpose(image, in_place=True)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image  # to convert it would copy it
    if image.mode.startswith("I;16"):  # which Pillow would clip to 8 bits, not scale
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, of which nobody knows what is white")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


@cache
def _formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _what_else(head: bytes) -> str:
    """Say what a file is that is no image of `FORMATS`, by its first bytes."""
    if not head:
        return "it is empty"
    Image.init()
    known = [name for name, (_, accepts) in Image.OPEN.items() if name not in FORMATS and accepts and accepts(head)]
    known += [name for signature, name in SIGNATURES.items() if signature in head]
    if not known:
        return "its format is not known"
    return f"its format is {known[0]}, which is not read; convert it to JPEG or PNG"


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, as a decompression bomb has"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
