"""Image files: find missing ones, read them as RGB, and report those that cannot be read."""

from __future__ import annotations

import logging
import os
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

from robusttune.counting import counted
from robusttune.data.ignored_warnings import ignored_warnings
from robusttune.errors import RobustTuneError
from robusttune.ranks import on_rank_zero, rank, world_size
from robusttune.regular_files import open_regular

log = logging.getLogger(__name__)

# Pillow decodes these formats by itself. For others it starts programs (Ghostscript for EPS), opens further files, or
# loads plug-ins, which is a risk with files from the internet.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "MPO")
HEAD = 256  # number of first bytes that identify a format
# Names of formats that Pillow does not recognise, by a byte string near the beginning of such files.
SIGNATURES = {b"ftyphei": "HEIC", b"ftyphev": "HEIC", b"ftypmif1": "HEIC", b"ftypmsf1": "HEIC", b"<svg": "SVG"}
SIGNATURES |= {b"ftypavif": "AVIF", b"%PDF": "PDF"}


class UnreadableImageError(Exception):
    """An error whose arguments name the files that cannot be read as images, and the reasons; usually one.

    Example:
        >>> str(UnreadableImageError("a.png is empty", "b.png is empty"))
        'a.png is empty; b.png is empty'
    """

    def __str__(self) -> str:
        return "; ".join(self.args)


class ImageReader(ABC):
    """A reader of the images of a source, which are identified by the names in its records."""

    @abstractmethod
    def missing(self, names: Iterable[str | None]) -> list[str]:
        """Return the names without an image, in order. No image is read.

        Args:
            names: Names of images; None entries are skipped.
        """

    @abstractmethod
    def read(self, name: str) -> Image.Image:
        """Read an image as RGB.

        Raises:
            UnreadableImageError: The image cannot be read.
        """

    def content(self, name: str) -> bytes | None:
        """Return the encoded image, such as the bytes of a JPEG file; None if it is drawn or stored as pixels.

        Raises:
            UnreadableImageError: The content cannot be read.
        """
        del name
        return None

    @abstractmethod
    def digest(self, name: str) -> bytes | None:
        """Return 16 bytes that identify the image, even an unreadable one, or None if it is a file of its own."""

    def digests(self, names: Sequence[str]) -> dict[str, bytes | None]:
        """Return the digest of each image by name, see `digest`."""
        return {name: self.digest(name) for name in names}


class ImageFiles(ImageReader):
    """A reader of image files; the name of an image is its path."""

    def missing(self, names: Iterable[str | None]) -> list[str]:
        """Return the paths that do not exist, in order."""
        return missing_files(names)

    def read(self, name: str) -> Image.Image:
        """Read an image file as RGB, see `read_image`."""
        return read_image(name)

    def content(self, name: str) -> bytes:
        """Return the bytes of a file."""
        return read_content(name)

    def digest(self, name: str) -> None:
        """Return None: the digest of a file is computed from its content, see `file_digests`."""


def read_image(file: str | Path | BytesIO, called: str = "") -> Image.Image:
    """Read an image file as RGB.

    The first frame is read and rotated as the EXIF orientation says. Transparent pixels are put on a white background.

    Args:
        file: Path of the file, or its content.
        called: Name of the image in error messages; by default its path.

    Raises:
        UnreadableImageError: The image cannot be read, for any reason.

    Example:
        >>> content = BytesIO()
        >>> Image.new("L", (4, 2), 255).save(content, "PNG")
        >>> read_image(content).getpixel((0, 0))
        (255, 255, 255)
    """
    content: AbstractContextManager[IO[bytes]]
    try:
        # Pillow warns about odd metadata, which do not change the pixels, and about large images that it accepts.
        with ignored_warnings():
            content = nullcontext(file) if isinstance(file, BytesIO) else open_regular(file)
            with content as opened, open_image(opened) as image:
                image.load()
                _turn_upright(image)
                return _as_rgb(image)
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise UnreadableImageError(f"{called or file!s:.300} cannot be read as an image ({_reason(error)})") from None


def to_rgb(image: Image.Image, called: str) -> Image.Image:
    """Convert a Pillow image to RGB as `read_image` does. The image itself is not changed.

    Args:
        image: Image, which may not be loaded yet.
        called: Name of the image in error messages.

    Raises:
        UnreadableImageError: The image cannot be loaded or converted.

    Example:
        >>> to_rgb(Image.new("RGBA", (4, 2)), "logo").getpixel((0, 0))
        (255, 255, 255)
    """
    try:
        with ignored_warnings():
            upright = image
            with suppress(Exception):  # see _turn_upright
                upright = ImageOps.exif_transpose(image) if image.getexif() else image
            return _as_rgb(upright)
    except Exception as error:
        raise UnreadableImageError(f"{called} cannot be read as an image ({_reason(error)})") from None


def read_content(path: str) -> bytes:
    """Return the bytes of an image file.

    Raises:
        UnreadableImageError: The file cannot be read, or changed while it was read.
    """
    try:
        with open_regular(path) as file:
            before = os.fstat(file.fileno())
            content = file.read()
        after = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UnreadableImageError(f"{path:.300} cannot be read as an image ({_reason(error)})") from None
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise UnreadableImageError(f"{path:.300} changed while it was read")
    return content


def open_image(content: IO[bytes]) -> Image.Image:
    """Open an image whose format is one of `FORMATS`. The file's ending is ignored, and no program is started.

    Args:
        content: Readable and seekable binary file.

    Raises:
        UnidentifiedImageError: The file has another format, named in the message, or is no image.
    """
    try:
        return Image.open(content, formats=_formats())
    except UnidentifiedImageError:
        content.seek(0)
        raise UnidentifiedImageError(_name_format(content.read(HEAD))) from None


@cache
def image_endings() -> tuple[str, ...]:
    """Return the endings of files of `FORMATS`, such as ``.jpg``, in lower case.

    Example:
        >>> ".jpg" in image_endings(), ".pdf" in image_endings()
        (True, False)
    """
    return tuple(ending for ending, name in Image.registered_extensions().items() if name in FORMATS)


def missing_files(paths: Iterable[str | None]) -> list[str]:
    """Return the paths that do not exist, in order. No file is opened, and each folder is listed once.

    Args:
        paths: Paths of files; None entries are skipped.

    Example:
        >>> missing_files([None, "no/such/image.jpg"])
        ['no/such/image.jpg']
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        if path is None:
            continue
        start = path.rfind("/") + 1  # os.path.split takes several times as long
        folder = path[:start]
        if folder not in listed:
            listed[folder] = _names_in(folder or ".")
        if path[start:] not in listed[folder]:
            missing.append(path)
    return missing


def unreadable_images(names: Iterable[str], reader: ImageReader, threads: int) -> list[str]:
    """Decode all images, and return an error message for each one that cannot be read, in order.

    Args:
        names: Names of the images.
        reader: Reader that knows the names.
        threads: Number of threads that decode images.
    """

    def problem(name: str) -> str | None:
        """Return the error message of one image, or None if it can be read."""
        try:
            reader.read(name)
        except UnreadableImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(threads) as pool:  # decoders release the GIL
        return [found for found in pool.map(problem, names) if found is not None]


def refuse_unreadable(names: Sequence[str], reader: ImageReader, found: list[str], threads: int) -> NoReturn:
    """Check all images after one could not be read, and raise an error that counts the unreadable ones.

    The user can then repair all of them at once. The ranks share the work, and every rank must take part.

    Args:
        names: Names of all images.
        reader: Reader that knows the names.
        found: Error messages of the unreadable images that this rank knows already.
        threads: Number of threads that decode images on this rank.

    Raises:
        RobustTuneError: Always; the message has the number of unreadable images, and the first of them.
    """
    for problem in found[:1]:
        log.warning("%s; checking the other images, %d in all", problem, len(names) - 1)

    def refuse(parts: list[tuple[set[str], set[str]]]) -> None:
        """Raise the error for the messages of all ranks; those from before count if all images can be read by now."""
        checked, known = ({problem for problems in group for problem in problems} for group in zip(*parts, strict=True))
        problems = sorted(checked or known)
        raise RobustTuneError(
            f"{len(problems)} of {counted(len(names), 'image file')} cannot be read: {'; '.join(problems[:3])}"
            f"{'; ...' * (len(problems) > 3)}: repair or remove them, or set data.unreadable to absent"
        )

    checked = {*unreadable_images(names[rank() :: world_size()], reader, threads)}
    on_rank_zero((checked, {*found}), refuse)
    raise AssertionError("rank 0 refuses")


def _names_in(folder: str) -> set[str]:
    """Return the names of the entries of a folder; none if it cannot be listed."""
    try:
        return set(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return set()


def _turn_upright(image: Image.Image) -> None:
    """Rotate and mirror the image in place, as its EXIF orientation says."""
    with suppress(Exception):  # invalid metadata do not make the pixels unusable
        ImageOps.exif_transpose(image, in_place=True)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert the image to RGB, on a white background.

    Raises:
        ValueError: The pixels are 32-bit numbers without a known range.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image  # a conversion would copy it
    if image.mode.startswith("I;16"):  # Pillow would clip the values to 8 bits instead of scaling them
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers without a known range")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats of `FORMATS` that the installed Pillow supports."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _name_format(head: bytes) -> str:
    """Return a phrase that names the format of a file that is not in `FORMATS`, from its first bytes."""
    if not head:
        return "it is empty"
    Image.init()
    known = [name for name, (_, accepts) in Image.OPEN.items() if name not in FORMATS and accepts and accepts(head)]
    known += [name for signature, name in SIGNATURES.items() if signature in head]
    if not known:
        return "its format is not known"
    return f"its format is {known[0]}, which is not read; convert it to JPEG or PNG"


def _reason(error: Exception) -> str:
    """Return a short reason for the error message of an unreadable image."""
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, as a decompression bomb has"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
