"""Noise on images and texts: the kinds, each in five severities, and the settings that apply them."""

from robusttune.corruption.noise.by_split import NoiseBySplit, SplitNoise
from robusttune.corruption.noise.image import IMAGE_NOISE, ImageNoiseKind, corrupt_image
from robusttune.corruption.noise.settings import SEVERITIES, ImageNoise, TextNoise
from robusttune.corruption.noise.text import TEXT_NOISE, TextNoiseKind, corrupt_text
from robusttune.corruption.noise.version import noise_version

__all__ = [
    "IMAGE_NOISE",
    "SEVERITIES",
    "TEXT_NOISE",
    "ImageNoise",
    "ImageNoiseKind",
    "NoiseBySplit",
    "SplitNoise",
    "TextNoise",
    "TextNoiseKind",
    "corrupt_image",
    "corrupt_text",
    "noise_version",
]
