"""Images that a caller passes in memory or by name, as RGB images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import BytesIO
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from robusttune.data.images import ImageReader, UnreadableImageError, read_image, to_rgb
from robusttune.data.sources.base import Record
from robusttune.data.sources.image_cells import image_parts
from robusttune.data.stored_images import StoredImages
from robusttune.errors import RobustTuneError

KINDS = "a path, a URL, bytes, a PIL image, a NumPy array, a torch tensor or None"
CHANNELS = (1, 3, 4)
_loading = Lock()


class GivenImages(ImageReader):
    """A reader of images that a caller has passed.

    The name of an image is the position of its sample, from 0, and its position in the sample: ``2.0``.

    Args:
        images: Image of each sample, of any kind that `read_given` reads; a list for a sample with several images; None
            for one without.

    Example:
        >>> GivenImages([np.zeros((2, 4, 3), dtype=np.uint8)]).read("0.0").size
        (4, 2)
    """

    def __init__(self, images: Sequence[Any]) -> None:
        self.images = [_list(image) for image in images]
        self.stored = StoredImages()

    def record(self, row: int, text: str | None, labels: list[str] | None) -> Record:
        """Return the record of a sample, whose id is its position, from 1."""
        names = [f"{row}.{place}" for place in range(len(self.images[row]))]
        return Record(str(row + 1), names[0] if names else None, text, labels, names[1:] or None)

    def missing(self, names: Iterable[str | None]) -> list[str]:
        """Return an empty list: all images were passed."""
        del names
        return []

    def read(self, name: str) -> Image.Image:
        """Read an image, see `read_given`."""
        row, place = map(int, name.split("."))
        called = f"image {row}" if len(self.images[row]) == 1 else f"image {row}, number {place},"
        return read_given(self.images[row][place], self.stored, called)

    def digest(self, name: str) -> None:
        """Return None: these images are not cached."""
        del name


def _list(image: Any) -> list[Any]:
    """Return the images of a sample, in a list."""
    if image is None:
        return []
    return list(image) if isinstance(image, list | tuple) else [image]


def read_given(image: Any, stored: StoredImages, called: str) -> Image.Image:
    """Return an image as RGB.

    Args:
        image: Path or URL, content of an image file (bytes, base64 text, a data URL, an open binary file, or a
            dictionary with ``bytes`` or ``path``), PIL image, NumPy array of shape (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4), or torch tensor of shape (H, W), (1, H, W), (3, H, W) or (4, H, W). Numbers are uint8, or floats
            in [0, 1].
        stored: Reader of paths and URLs.
        called: Name of the image in error messages.

    Raises:
        UnreadableImageError: The content is no image, or cannot be read.
        RobustTuneError: The object is of another kind, or its numbers are no image.

    Example:
        >>> read_given(np.ones((2, 4), dtype=np.float32), StoredImages(), "photo").getpixel((0, 0))
        (255, 255, 255)
    """
    if isinstance(image, Image.Image):
        with _loading, suppress(Exception):  # samples may share an image that is not loaded yet; to_rgb reports errors
            image.load()
        return to_rgb(image, called)
    if isinstance(image, np.ndarray):
        return _from_array(image, called)
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu()
        array = array.float() if array.is_floating_point() else array  # NumPy has no bfloat16
        return _from_array((array.permute(1, 2, 0) if array.ndim == 3 else array).numpy(), called)
    if isinstance(image, bytearray | memoryview):
        image = bytes(image)
    elif isinstance(image, os.PathLike):
        image = os.fspath(image)
    elif hasattr(image, "read"):
        image = image.read()
    try:
        part = next(image_parts(image), None)
    except ValueError:
        raise RobustTuneError(f"{called} is of the type {type(image).__name__}: give {KINDS}") from None
    if isinstance(part, bytes):
        return read_image(BytesIO(part), called)
    if isinstance(part, str):
        return stored.read(part)
    raise UnreadableImageError(f"{called} is empty")


def _from_array(array: NDArray[Any], called: str) -> Image.Image:
    """Return an array (H, W) or (H, W, channels) of uint8, or of floats in [0, 1], as an RGB image.

    Raises:
        RobustTuneError: The array has another shape, another dtype, or numbers out of range.
    """
    shape = tuple(array.shape)
    if array.ndim not in (2, 3) or 0 in shape or (array.ndim == 3 and shape[2] not in CHANNELS):
        raise RobustTuneError(
            f"{called} is an array of shape {shape}: give (height, width), or (height, width, channels) with 1, 3 or 4 "
            "channels; a torch tensor has its channels first"
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise RobustTuneError(f"{called} has numbers that are NaN or outside of [0, 1]: scale it, or give uint8")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise RobustTuneError(f"{called} has the dtype {array.dtype}: give uint8, or floats in [0, 1]")
    squeezed = array[:, :, 0] if array.ndim == 3 and shape[2] == 1 else array
    return to_rgb(Image.fromarray(np.ascontiguousarray(squeezed)), called)
