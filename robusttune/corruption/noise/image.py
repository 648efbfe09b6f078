"""Kinds of image noise, each in five severities, as pure functions of the pixels and a random generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor

ImageNoiseKind = Literal["gaussian", "shot", "blur", "jpeg", "brightness", "occlusion", "low_resolution"]
Pixels = npt.NDArray[np.uint8]  # (H, W, 3)

SIDE = 224  # reference edge length in pixels; lengths in IMAGE_NOISE refer to images of this size
GREY = 128


def corrupt_image(image: Tensor, kind: ImageNoiseKind, severity: int, rng: np.random.Generator) -> Tensor:
    """Return a copy of the image with one kind of noise.

    Lengths, such as the width of a blur, scale with the image's edge length, so that a picture loses equally much at
    any size. Noise on single pixels does not depend on the size.

    Args:
        image: Pixels, shape (3, H, W), uint8, after the encoder's preprocessing.
        kind: Kind of noise, a key of `IMAGE_NOISE`.
        severity: Severity, from 1 (mild) to 5.
        rng: Random generator of the noise.

    Returns:
        Pixels, shape (3, H, W), uint8, in memory of their own.

    Example:
        >>> grey = torch.full((3, 8, 8), 100, dtype=torch.uint8)
        >>> corrupt_image(grey, "occlusion", 5, np.random.default_rng(0)).unique().tolist()
        [100, 128]
    """
    damage, parameters = IMAGE_NOISE[kind]
    pixels = damage(image.permute(1, 2, 0).numpy(), parameters[severity - 1], rng)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _gaussian(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Add normal noise; the standard deviation is a share of the range 0 to 255."""
    return _as_uint8(pixels + 255 * deviation * rng.standard_normal(pixels.shape, dtype=np.float32))


def _shot(pixels: Pixels, photons: float, rng: np.random.Generator) -> Pixels:
    """Replace each value by a Poisson draw; white corresponds to a mean of ``photons``."""
    return _as_uint8(rng.poisson(pixels * (photons / 255)) * (255 / photons))


def _blur(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    """Apply a Gaussian blur; the standard deviation is in pixels at the reference size."""
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(deviation * _scale(pixels))))


def _jpeg(pixels: Pixels, quality: float, rng: np.random.Generator) -> Pixels:
    """Compress the image as JPEG at the reference size.

    The blocks of the format always have 8 pixels, which would be a quarter of the width of an image of 32 pixels.
    """
    height, width, _ = pixels.shape
    scale, file = _scale(pixels), BytesIO()
    _resize(Image.fromarray(pixels), width / scale, height / scale).save(file, "JPEG", quality=int(quality))
    return np.array(_resize(Image.open(file, formats=["JPEG"]), width, height))


def _brightness(pixels: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """Make the image brighter or darker by a share of the range 0 to 255."""
    return _as_uint8(pixels + 255 * share * rng.choice((-1, 1)))


def _occlusion(pixels: Pixels, area: float, rng: np.random.Generator) -> Pixels:
    """Cover a rectangle with grey.

    It lies within the image and has a share ``area`` of its pixels. Relative to the image's shape, it is up to twice
    as tall as wide, or twice as wide as tall.
    """
    height, width, _ = pixels.shape
    stretch = math.sqrt(2) ** rng.uniform(-1, 1)
    down, across = round(height * math.sqrt(area) * stretch), round(width * math.sqrt(area) / stretch)
    top, left = rng.integers(height - down + 1), rng.integers(width - across + 1)
    covered = pixels.copy()
    covered[top : top + down, left : left + across] = GREY
    return covered


def _low_resolution(pixels: Pixels, block: float, rng: np.random.Generator) -> Pixels:
    """Shrink the image so that blocks of ``block`` pixels (at the reference size) become one pixel, and enlarge it."""
    height, width, _ = pixels.shape
    shrink = 1 + (block - 1) * _scale(pixels)  # a block of one pixel loses nothing, so only the excess scales
    small = _resize(Image.fromarray(pixels), width / shrink, height / shrink)
    return np.array(_resize(small, width, height))


def _resize(image: Image.Image, width: float, height: float) -> Image.Image:
    """Resize the image to the rounded size, at least 1 x 1, with bicubic interpolation."""
    return image.resize((max(1, round(width)), max(1, round(height))), Image.Resampling.BICUBIC)


def _as_uint8(values: npt.NDArray[Any]) -> Pixels:
    """Round the values and clip them to the range 0 to 255."""
    return values.round().clip(0, 255).astype(np.uint8)


def _scale(pixels: Pixels) -> float:
    """Return the ratio of the image's size (the geometric mean of height and width) to the reference size."""
    return math.sqrt(pixels.shape[0] * pixels.shape[1]) / SIDE


Damage = Callable[[Pixels, float, np.random.Generator], Pixels]
# The function of each kind, and its parameter for the severities 1 to 5.
IMAGE_NOISE: dict[ImageNoiseKind, tuple[Damage, tuple[float, float, float, float, float]]] = {
    "gaussian": (_gaussian, (0.06, 0.10, 0.16, 0.25, 0.38)),  # standard deviation as a share of the range
    "shot": (_shot, (60, 25, 12, 6, 3)),  # mean number of photons of white
    "blur": (_blur, (1.5, 2.5, 4.0, 5.5, 7.5)),  # standard deviation in pixels at size 224
    "jpeg": (_jpeg, (30, 18, 10, 7, 4)),  # JPEG quality
    "brightness": (_brightness, (0.10, 0.20, 0.30, 0.42, 0.55)),  # shift as a share of the range
    "occlusion": (_occlusion, (0.06, 0.12, 0.20, 0.32, 0.50)),  # share of the area
    "low_resolution": (_low_resolution, (2.5, 3.5, 5.0, 7.0, 10.0)),  # block width in pixels at size 224
}
