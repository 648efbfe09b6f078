"""Modality dropout, and where its randomness comes from: pure functions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from robusttune.errors import RobustTuneError


@dataclass(frozen=True)
class ModalityDropout:
    """Modality dropout: sides that training samples lose, others in every epoch.

    Args:
        image_dropout: probability that a complete sample loses its image, in [0, 1].
        text_dropout: probability that it loses its text, in [0, 1]; never both, so the two add up to at most 1.
    """

    image_dropout: float = 0.3
    text_dropout: float = 0.3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise RobustTuneError(f"{name} is {value}: give a number from 0 to 1")
        if self.image_dropout + self.text_dropout > 1:
            raise RobustTuneError(
                f"image_dropout {self.image_dropout} and text_dropout {self.text_dropout} add up to more than 1, "
                "but no sample loses both sides: lower one of them"
            )


def sample_generator(seed: int, epoch: int, sample_id: str, use: str) -> np.random.Generator:
    """A generator for one use that depends on these alone, so never on rank, worker, order or other uses."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{use}/{sample_id}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def drop_modality(
    has_image: bool, has_text: bool, settings: ModalityDropout, rng: np.random.Generator
) -> tuple[bool, bool]:
    """Which sides of a sample stay; one that lacks a side already keeps the other."""
    draw = rng.random()
    if not (has_image and has_text):
        return has_image, has_text
    drop_image = draw < settings.image_dropout
    drop_text = settings.image_dropout <= draw < settings.image_dropout + settings.text_dropout
    return not drop_image, not drop_text
