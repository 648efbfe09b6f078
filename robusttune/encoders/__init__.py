"""Frozen image and text encoders behind one interface."""

from robusttune.encoders.base import Encoder, FrozenEncoder, ImageEncoder, TextEncoder
from robusttune.encoders.preprocessing import Augmentation, ImageTransform, Preprocessing, Tokenizer
from robusttune.encoders.timm_image import TimmEncoder
from robusttune.encoders.transformers_image import TransformersImageEncoder
from robusttune.encoders.transformers_text import TransformersTextEncoder

__all__ = [
    "Augmentation",
    "Encoder",
    "FrozenEncoder",
    "ImageEncoder",
    "ImageTransform",
    "Preprocessing",
    "TextEncoder",
    "TimmEncoder",
    "Tokenizer",
    "TransformersImageEncoder",
    "TransformersTextEncoder",
]
