"""Frozen image and text encoders behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robusttune.encoders.base import Encoder, FrozenEncoder, ImageEncoder, TextEncoder
from robusttune.encoders.low_rank import LoRA
from robusttune.encoders.preprocessing import Augmentation, ImageTransform, Preprocessing
from robusttune.encoders.tokenization import Tokenizer
from robusttune.lazy import lazy_attributes

if TYPE_CHECKING:
    from robusttune.encoders.clip import CLIPImageEncoder, CLIPTextEncoder
    from robusttune.encoders.timm_image import TimmEncoder
    from robusttune.encoders.transformers_image import TransformersImageEncoder
    from robusttune.encoders.transformers_text import TransformersTextEncoder

__all__ = [
    "Augmentation",
    "CLIPImageEncoder",
    "CLIPTextEncoder",
    "Encoder",
    "FrozenEncoder",
    "ImageEncoder",
    "ImageTransform",
    "LoRA",
    "Preprocessing",
    "TextEncoder",
    "TimmEncoder",
    "Tokenizer",
    "TransformersImageEncoder",
    "TransformersTextEncoder",
]

# These are imported on first use, because loader workers need neither timm nor transformers.
__getattr__ = lazy_attributes(
    __name__,
    {
        "CLIPImageEncoder": "clip",
        "CLIPTextEncoder": "clip",
        "TimmEncoder": "timm_image",
        "TransformersImageEncoder": "transformers_image",
        "TransformersTextEncoder": "transformers_text",
    },
)
