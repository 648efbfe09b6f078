"""Which noise samples get: of what kinds, how severe, how often."""

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
    """What `ImageNoise` and `TextNoise` share: a sample gets noise or not, of one kind and severity.

    Args:
        kinds: of noise; a sample's is drawn from them, each as likely as the others.
        severities: from 1, mild, to 5; a sample's is drawn from them likewise.
        rate: probability that a sample gets noise, in [0, 1].

    Raises:
        RobustTuneError: a list is empty or has something else in it, or the rate is no probability.
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
    """Noise on images."""

    known = IMAGE_NOISE
    kinds: list[ImageNoiseKind]

    def apply(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """The image, (3, H, W) uint8, with noise or as it is, as the generator has it."""
        if rng.random() >= self.rate:
            return image
        return corrupt_image(image, _draw(self.kinds, rng), _draw(self.severities, rng), rng)


@dataclass(frozen=True)
class TextNoise(Noise):
    """Noise on texts."""

    known = TEXT_NOISE
    kinds: list[TextNoiseKind]

    def apply(self, text: str, rng: np.random.Generator, other: str | None) -> str:
        """The text with noise or as it is, as the generator has it; `other` is another sample's, for `other_text`."""
        if rng.random() >= self.rate:
            return text
        return corrupt_text(text, _draw(self.kinds, rng), _draw(self.severities, rng), rng, other)


def _draw(options: Sequence[T], rng: np.random.Generator) -> T:
    return options[int(rng.integers(len(options)))]


def _refuse_unknown(name: str, given: Sequence[object], known: Collection[object]) -> None:
    if not given or any(value not in known for value in given):
        choice = ", ".join(map(str, known))
        raise RobustTuneError(f"noise {name} {list(given)} do not work: list one or more of {choice}")
