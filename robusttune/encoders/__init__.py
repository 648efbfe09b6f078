"""Frozen image and text encoders behind one interface."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from robusttune.encoders.base import Encoder, FrozenEncoder, ImageEncoder, TextEncoder
from robusttune.encoders.preprocessing import Augmentation, ImageTransform, Preprocessing
from robusttune.encoders.tokenization import Tokenizer

if TYPE_CHECKING:
    from robusttune.encoders.clip import CLIPImageEncoder, CLIPTextEncoder
    from robusttune.encoders.timm_image import TimmEncoder
    from robusttune.encoders.transformers_image import TransformersImageEncoder
    from robusttune.encoders.transformers_text import TransformersTextEncoder

# These are imported on first use, because loader workers need neither timm nor transformers.
LAZY = {
    "CLIPImageEncoder": "clip",
    "CLIPTextEncoder": "clip",
    "TimmEncoder": "timm_image",
    "TransformersImageEncoder": "transformers_image",
    "TransformersTextEncoder": "transformers_text",
}

__all__ = [
    "Augmentation",
    "CLIPImageEncoder",
    "CLIPTextEncoder",
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


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{LAZY[name]}"), name)
