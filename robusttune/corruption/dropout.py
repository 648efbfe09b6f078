"""Modality dropout, and the random generators of single samples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from robusttune.errors import RobustTuneError


@dataclass(frozen=True)
class ModalityDropout:
    """Probabilities of modality dropout, which removes one modality of a training sample, drawn anew in every epoch.

    Only samples with both modalities lose one, so no sample becomes empty.

    Args:
        image_dropout: Probability that a complete sample loses its image, in [0, 1].
        text_dropout: Probability that a complete sample loses its text, in [0, 1]. A sample never loses both, so the
            two probabilities add up to at most 1.

    Raises:
        RobustTuneError: A probability is outside [0, 1], or the two add up to more than 1.

    Example:
        >>> settings = ModalityDropout(image_dropout=1.0, text_dropout=0.0)
        >>> drop_modality(has_image=True, has_text=True, settings=settings, rng=np.random.default_rng(0))
        (False, True)
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
                "but no sample loses both modalities: lower one of them"
            )

    @property
    def is_active(self) -> bool:
        """Return whether any sample can lose a modality."""
        return max(self.image_dropout, self.text_dropout) > 0


def sample_generator(seed: int, epoch: int, sample_id: str, use: str) -> np.random.Generator:
    """Return a random generator that depends on the arguments alone.

    The rank, the worker, the order of the samples and other random draws do not change its numbers. A run on more
    devices, or a resumed one, therefore sees the same noise and the same modality dropout.

    Args:
        seed: Seed of the run.
        epoch: Epoch, or index of the random view, from 0.
        sample_id: Id of the sample, unique within its split.
        use: Name of the purpose, such as ``modality`` or ``image``. Each purpose has its own stream.

    Example:
        >>> first, again = (sample_generator(0, 1, "a", "image").random() for _ in range(2))
        >>> first == again, first == sample_generator(0, 1, "a", "text").random()
        (True, False)
    """
    digest = hashlib.blake2b(f"{seed}/{epoch}/{use}/{sample_id}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def drop_modality(
    has_image: bool, has_text: bool, settings: ModalityDropout, rng: np.random.Generator
) -> tuple[bool, bool]:
    """Draw the modalities that a sample keeps.

    A sample that has a single modality keeps it. One number is drawn in any case.

    Args:
        has_image: Whether the sample has an image.
        has_text: Whether the sample has a text.
        settings: Dropout probabilities.
        rng: Random generator of this sample and epoch, see `sample_generator`.

    Returns:
        Two flags: the sample keeps its image, and the sample keeps its text.
    """
    draw = rng.random()
    if not (has_image and has_text):
        return has_image, has_text
    drop_image = draw < settings.image_dropout
    drop_text = settings.image_dropout <= draw < settings.image_dropout + settings.text_dropout
    return not drop_image, not drop_text
