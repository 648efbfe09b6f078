"""Image preprocessing: resizing, cropping and augmentation of a PIL image into a uint8 tensor."""

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
    """The resizing, cropping and normalisation that an encoder was trained with.

    Args:
        size: Edge length of the square result, in pixels.
        crop: Fraction of the resized image's edge length that the centre crop keeps, in (0, 1].
        mean: Mean of each colour channel, for values in [0, 1].
        std: Standard deviation of each colour channel, for values in [0, 1]; above 0.
        interpolation: ``bicubic``, ``bilinear`` or ``nearest``.
        crop_mode: ``center`` keeps the aspect ratio and crops a square, ``squash`` resizes the image to a square.

    Raises:
        RobustTuneError: A value is out of its range.

    Example:
        >>> from PIL import Image
        >>> half = Preprocessing(size=224, crop=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> ImageTransform(half)(Image.new("RGB", (640, 480)), seed=0).shape
        torch.Size([3, 224, 224])
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
    """Random cropping and flipping during training, in place of the centre crop.

    Args:
        scale: Smallest and largest fraction of the image's area that a random crop keeps, in (0, 1].
        flip: Probability of a horizontal flip, in [0, 1].

    Raises:
        RobustTuneError: A value is out of its range.

    Example:
        >>> Augmentation(scale=(0.8, 1.0), flip=0.0).scale
        (0.8, 1.0)
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
    """A function from a PIL image to a tensor of shape (3, size, size), uint8.

    The encoder normalises the values later, on its own device. A random crop depends on the seed alone, not on the
    loader worker, the rank or the order of the samples.

    Args:
        preprocessing: Size, crop and interpolation of the result.
        augmentation: Random cropping and flipping; None for the centre crop.

    Example:
        >>> from PIL import Image
        >>> settings = Preprocessing(size=32, crop=1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> transform = ImageTransform(settings, Augmentation())
        >>> image = Image.new("RGB", (64, 48), "red")
        >>> bool((transform(image, seed=7) == transform(image, seed=7)).all())
        True
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
    """Resize an image and crop its centre, without computing the pixels that are cropped away.

    The result equals torchvision's ``Resize`` followed by ``CenterCrop`` up to rounding. In photos single values differ
    by 1 of 255. In pure noise they differ by more, because torchvision clips values between its two passes.

    Args:
        image: Image of any size.
        preprocessing: Size, crop, interpolation and crop mode of the result.

    Returns:
        Image of ``preprocessing.size`` by ``preprocessing.size`` pixels.
    """
    size, resized = preprocessing.size, round(preprocessing.size / preprocessing.crop)
    if preprocessing.crop_mode == "squash":
        width = height = resized
    else:
        shorter = min(image.size)
        width, height = (int(resized * length / shorter) for length in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    x_scale, y_scale = image.width / width, image.height / height
    right, bottom = min((left + size) * x_scale, image.width), min((top + size) * y_scale, image.height)
    box = (left * x_scale, top * y_scale, right, bottom)
    return image.resize((size, size), Image.Resampling[preprocessing.interpolation.upper()], box)
