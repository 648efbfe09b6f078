"""Kinds of image noise, each in five severities: pure functions of the pixels and a random generator."""

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

SIDE = 224  # pixels; lengths are given for images of this side
GREY = 128


def corrupt_image(image: Tensor, kind: ImageNoiseKind, severity: int, rng: np.random.Generator) -> Tensor:
    """The image with one kind of noise.

    Lengths scale with the image's side, so that a picture loses alike at any size; noise on pixels is the same at any.

    Args:
        image: (3, H, W) uint8, as its encoder takes it.
        kind: of noise.
        severity: from 1, mild, to 5.
        rng: that the noise is drawn from.

    Returns:
        (3, H, W) uint8, of its own memory.
    """
    damage, parameters = IMAGE_NOISE[kind]
    pixels = damage(image.permute(1, 2, 0).numpy(), parameters[severity - 1], rng)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _gaussian(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    return _as_uint8(pixels + 255 * deviation * rng.standard_normal(pixels.shape, dtype=np.float32))


def _shot(pixels: Pixels, photons: float, rng: np.random.Generator) -> Pixels:
    return _as_uint8(rng.poisson(pixels * (photons / 255)) * (255 / photons))


def _blur(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(deviation * _scale(pixels))))


def _jpeg(pixels: Pixels, quality: float, rng: np.random.Generator) -> Pixels:
    """Saved at the reference size: the format's blocks have 8 pixels, a quarter of a side of 32."""
    height, width, _ = pixels.shape
    scale, file = _scale(pixels), BytesIO()
    _resize(Image.fromarray(pixels), width / scale, height / scale).save(file, "JPEG", quality=int(quality))
    return np.array(_resize(Image.open(file, formats=["JPEG"]), width, height))


def _brightness(pixels: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    return _as_uint8(pixels + 255 * share * rng.choice((-1, 1)))


def _occlusion(pixels: Pixels, area: float, rng: np.random.Generator) -> Pixels:
    """A rectangle within the image, up to twice as tall as wide or wide as tall, relative to the image."""
    height, width, _ = pixels.shape
    stretch = math.sqrt(2) ** rng.uniform(-1, 1)
    down, across = round(height * math.sqrt(area) * stretch), round(width * math.sqrt(area) / stretch)
    top, left = rng.integers(height - down + 1), rng.integers(width - across + 1)
    covered = pixels.copy()
    covered[top : top + down, left : left + across] = GREY
    return covered


def _low_resolution(pixels: Pixels, block: float, rng: np.random.Generator) -> Pixels:
    height, width, _ = pixels.shape
    shrink = 1 + (block - 1) * _scale(pixels)  # blocks of one pixel lose nothing: what is beyond that scales
    small = _resize(Image.fromarray(pixels), width / shrink, height / shrink)
    return np.array(_resize(small, width, height))


def _resize(image: Image.Image, width: float, height: float) -> Image.Image:
    return image.resize((max(1, round(width)), max(1, round(height))), Image.Resampling.BICUBIC)


def _as_uint8(values: npt.NDArray[Any]) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)


def _scale(pixels: Pixels) -> float:
    return math.sqrt(pixels.shape[0] * pixels.shape[1]) / SIDE


Damage = Callable[[Pixels, float, np.random.Generator], Pixels]
# Of each kind, what does it, and the parameter that it takes by severity.
IMAGE_NOISE: dict[ImageNoiseKind, tuple[Damage, tuple[float, float, float, float, float]]] = {
    "gaussian": (_gaussian, (0.06, 0.10, 0.16, 0.25, 0.38)),  # standard deviation, as a share of the range
    "shot": (_shot, (60, 25, 12, 6, 3)),  # photons that make white
    "blur": (_blur, (1.5, 2.5, 4.0, 5.5, 7.5)),  # standard deviation, in pixels of 224
    "jpeg": (_jpeg, (30, 18, 10, 7, 4)),  # quality
    "brightness": (_brightness, (0.10, 0.20, 0.30, 0.42, 0.55)),  # shift, as a share of the range
    "occlusion": (_occlusion, (0.06, 0.12, 0.20, 0.32, 0.50)),  # share of the area
    "low_resolution": (_low_resolution, (2.5, 3.5, 5.0, 7.0, 10.0)),  # side of what becomes a pixel, in pixels of 224
}
