"""From a picture and a text to the tensors that encoders take."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import tokenizers
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from robusttune.errors import RobustTuneError
from robusttune.types import Tokens


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


class Tokenized(NamedTuple):
    """Texts as tokens, and of each text whether it was cut."""

    tokens: Tokens
    cut: list[bool]


class Tokenizer:
    """Batched fast tokenisation, truncated to ``max_length`` tokens and padded on the right.

    Args:
        backend: the Rust tokenizer itself, so that loader workers need not import transformers.
        max_length: most tokens that a text keeps, special ones included.
        pad_id: token that texts are padded with.
    """

    def __init__(self, backend: tokenizers.Tokenizer, max_length: int, pad_id: int) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.sha256 = hashlib.sha256(backend.to_str().encode()).hexdigest()
        backend.enable_truncation(max_length)
        backend.enable_padding(direction="right", pad_id=pad_id)
        self.backend = backend
        self.max_length = max_length

    def __call__(self, texts: list[str]) -> Tokenized:
        encoded = self.backend.encode_batch(texts)
        shape = len(texts), -1 if texts else 0
        tokens = Tokens(
            torch.tensor([text.ids for text in encoded], dtype=torch.int64).reshape(shape),
            torch.tensor([text.attention_mask for text in encoded], dtype=torch.bool).reshape(shape),
        )
        return Tokenized(tokens, [bool(text.overflowing) for text in encoded])

    def lengths(self, texts: list[str]) -> list[int]:
        """Number of tokens that each text keeps."""
        return [sum(text.attention_mask) for text in self._encoded(texts)]

    def full_lengths(self, texts: list[str]) -> list[int]:
        """Number of tokens that each text has before it is cut, special ones included."""
        return [
            sum(text.attention_mask) + sum(_own_tokens(part) for part in text.overflowing)
            for text in self._encoded(texts)
        ]

    def _encoded(self, texts: list[str]) -> Iterator[tokenizers.Encoding]:
        block = 1024  # texts at once, so that little memory is held
        for start in range(0, len(texts), block):
            yield from self.backend.encode_batch(texts[start : start + block])


def _own_tokens(part: tokenizers.Encoding) -> int:
    """Tokens of what was cut off that are neither special nor padding."""
    return part.special_tokens_mask.count(0)
