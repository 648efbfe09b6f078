"""Settings of the noise on samples: its kinds, its severities and its rate."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import numpy as np
from torch import Tensor

from robusttune.corruption.noise.image import IMAGE_NOISE, ImageNoiseKind, corrupt_image
from robusttune.corruption.noise.text import TEXT_NOISE, TextNoiseKind, corrupt_text
from robusttune.errors import RobustTuneError

SEVERITIES = (1, 2, 3, 4, 5)
T = TypeVar("T")


@dataclass(frozen=True)
class Noise:
    """The common settings of `ImageNoise` and `TextNoise`. A noisy sample gets one kind with one severity.

    Args:
        kinds: Kinds of noise. Each sample's kind is drawn from them with equal probability.
        severities: Severities, from 1 (mild) to 5. Each sample's severity is drawn from them with equal probability.
        rate: Probability that a sample gets noise, in [0, 1].

    Attributes:
        known: Kinds that exist.

    Raises:
        RobustTuneError: A list is empty or has an unknown entry, or the rate is outside [0, 1].
    """

    known: ClassVar[Collection[str]]

    kinds: Sequence[str]
    severities: list[int] = field(default_factory=lambda: [3])
    rate: float = 1.0

    def __post_init__(self) -> None:
        _refuse_unknown("kinds", self.kinds, self.known)
        _refuse_unknown("severities", self.severities, SEVERITIES)
        if not 0 <= self.rate <= 1:
            raise RobustTuneError(f"noise rate is {self.rate}: give a number from 0 to 1")


@dataclass(frozen=True)
class ImageNoise(Noise):
    """Noise on images.

    Args:
        kinds: Kinds of noise, from `IMAGE_NOISE`. Each sample's kind is drawn from them with equal probability.

    Example:
        >>> import torch
        >>> noise = ImageNoise(kinds=["gaussian", "blur"], severities=[5])
        >>> noise.apply(torch.zeros(3, 32, 32, dtype=torch.uint8), np.random.default_rng(0)).shape
        torch.Size([3, 32, 32])
    """

    known = IMAGE_NOISE
    kinds: list[ImageNoiseKind]

    def apply(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the image with noise, or unchanged with probability 1 - rate.

        Args:
            image: Pixels, shape (3, H, W), uint8, after the encoder's preprocessing.
            rng: Random generator that decides on noise, kind, severity and the noise itself.

        Returns:
            Pixels, shape (3, H, W), uint8.
        """
        if rng.random() >= self.rate:
            return image
        return corrupt_image(image, _draw(self.kinds, rng), _draw(self.severities, rng), rng)


@dataclass(frozen=True)
class TextNoise(Noise):
    """Noise on texts.

    Args:
        kinds: Kinds of noise, from `TEXT_NOISE`. Each sample's kind is drawn from them with equal probability.

    Example:
        >>> noise = TextNoise(kinds=["truncation"], severities=[3])
        >>> noise.apply("one two three four", np.random.default_rng(0), other=None)
        'one two'
    """

    known = TEXT_NOISE
    kinds: list[TextNoiseKind]

    def apply(self, text: str, rng: np.random.Generator, other: str | None) -> str:
        """Return the text with noise, or unchanged with probability 1 - rate.

        Args:
            text: Text of the sample.
            rng: Random generator that decides on noise, kind, severity and the noise itself.
            other: Text of another sample, from where the kind ``other_text`` takes words; None if there is none.
        """
        if rng.random() >= self.rate:
            return text
        return corrupt_text(text, _draw(self.kinds, rng), _draw(self.severities, rng), rng, other)


def _draw(options: Sequence[T], rng: np.random.Generator) -> T:
    """Draw one option with equal probability."""
    return options[int(rng.integers(len(options)))]


def _refuse_unknown(name: str, given: Sequence[object], known: Collection[object]) -> None:
    if not given or any(value not in known for value in given):
        choice = ", ".join(map(str, known))
        raise RobustTuneError(f"noise {name} {list(given)} do not work: list one or more of {choice}")
