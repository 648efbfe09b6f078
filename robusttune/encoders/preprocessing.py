"""From a picture to the tensor that encoders take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from robusttune.errors import RobustTuneError


@dataclass(frozen=True)
class Preprocessing:
    """A square crop of an image, as an encoder was trained to see it.

    Args:
        size: side of the result, pixels.
        crop: share of the resized image's side that the crop keeps, in (0, 1].
        mean: per-channel mean of values in [0, 1].
        std: per-channel standard deviation.
        interpolation: ``bicubic``, ``bilinear`` or ``nearest``.
        crop_mode: ``center`` cuts what is beyond the square, ``squash`` gives up the aspect ratio.
    """

    size: int
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_mode: Literal["center", "squash"] = "center"

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.crop <= 1 or min(self.std) <= 0:
            raise RobustTuneError(
                f"image size {self.size}, crop {self.crop}, std {self.std} do not work: "
                "give a size of at least 1 pixel, a crop in (0, 1] and a positive std"
            )


@dataclass(frozen=True)
class Augmentation:
    """Random views for training, instead of the clean transform.

    Args:
        scale: least and greatest share of the image's area that a random crop keeps, in (0, 1].
        flip: probability of a horizontal flip, in [0, 1].
    """

    scale: tuple[float, float] = (0.5, 1.0)
    flip: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 <= self.flip <= 1:
            raise RobustTuneError(
                f"augmentation scale {self.scale} and flip {self.flip} do not work: "
                "give 0 < least <= greatest <= 1, and a probability from 0 to 1"
            )


class ImageTransform:
    """PIL image -> (3, size, size) uint8; normalisation is left to the encoder, on the device.

    A random view is a function of the seed alone, so that it does not depend on worker, rank or order.
    """

    def __init__(self, preprocessing: Preprocessing, augmentation: Augmentation | None = None) -> None:
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.random: v2.Compose | None = None
        if augmentation is not None:
            interpolation = InterpolationMode(preprocessing.interpolation)
            crop = v2.RandomResizedCrop(preprocessing.size, scale=augmentation.scale, interpolation=interpolation)
            self.random = v2.Compose([crop, v2.RandomHorizontalFlip(augmentation.flip)])

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        if self.random is None:
            view = resize_and_crop(image, self.preprocessing)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                view = self.random(image)
        tensor: Tensor = v2.functional.pil_to_tensor(view)
        return tensor


def resize_and_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The image resized and cropped at its centre, without computing what is cropped away.

    The same as torchvision's Resize and CenterCrop one after the other, but for rounding: in photos by 1 of 255 here
    and there, in noise by more, where values are clipped between the two passes.
    """
    size, resized = preprocessing.size, round(preprocessing.size / preprocessing.crop)
    if preprocessing.crop_mode == "squash":
        width = height = resized
    else:
        shorter = min(image.size)
        width, height = (int(resized * side / shorter) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    across, down = image.width / width, image.height / height
    box = (left * across, top * down, min((left + size) * across, image.width), min((top + size) * down, image.height))
    return image.resize((size, size), Image.Resampling[preprocessing.interpolation.upper()], box)
