"""Noise settings of each split."""

from __future__ import annotations

from dataclasses import dataclass

from robusttune.corruption.noise.settings import ImageNoise, TextNoise


@dataclass(frozen=True)
class SplitNoise:
    """Noise on the samples of one split.

    Args:
        image: Noise on the images, applied after the encoder's preprocessing; None for no noise.
        text: Noise on the texts, applied before they are tokenised; None for no noise.

    Example:
        >>> SplitNoise(text=TextNoise(kinds=["typos"], severities=[1, 2])).image is None
        True
    """

    image: ImageNoise | None = None
    text: TextNoise | None = None


@dataclass(frozen=True)
class NoiseBySplit:
    """Noise on the samples of each split.

    Args:
        train: Noise on training samples, drawn anew in every epoch.
        val: Noise on validation samples. A sample always gets the same noise.
        test: Noise on test samples. A sample always gets the same noise.

    Example:
        >>> noise = NoiseBySplit(train=SplitNoise(image=ImageNoise(kinds=["blur"], rate=0.5)))
        >>> noise.test == SplitNoise()
        True
    """

    train: SplitNoise = SplitNoise()
    val: SplitNoise = SplitNoise()
    test: SplitNoise = SplitNoise()
