"""Which noise the samples of each split get."""

from __future__ import annotations

from dataclasses import dataclass

from robusttune.corruption.noise.settings import ImageNoise, TextNoise


@dataclass(frozen=True)
class SplitNoise:
    """Noise on the samples of a split.

    Args:
        image: on their images, as the encoder takes them; None for none.
        text: on their texts; None for none.
    """

    image: ImageNoise | None = None
    text: TextNoise | None = None


@dataclass(frozen=True)
class NoiseBySplit:
    """Noise on the samples of each split.

    Args:
        train: another in every epoch.
        val: always the same on a sample.
        test: always the same on a sample.
    """

    train: SplitNoise = SplitNoise()
    val: SplitNoise = SplitNoise()
    test: SplitNoise = SplitNoise()
