"""Checks, with a few made-up tokens, that what a text model returns can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robusttune.encoders.text_form import padded_form
from robusttune.errors import RobustTuneError
from robusttune.types import Tokens, Widths

if TYPE_CHECKING:
    from robusttune.encoders.transformers_text import FrozenTransformersText

SHORT, LONG = 3, 6  # tokens
TOLERANCE = 1e-4  # of the largest state, far above rounding in float32


@torch.no_grad()
def probe(encoder: FrozenTransformersText) -> Widths:
    """Check an encoder, and return the widths of its outputs.

    A model whose states depend on padding gets texts of one length, ``max_length``, so that they do not depend on
    the other texts of a batch.

    Raises:
        RobustTuneError: The model needs more than tokens, returns no state for each, or none that can be pooled.
    """
    settings = encoder.settings
    text = _some_tokens(encoder, min(LONG, settings.max_length))
    try:
        encoded = encoder(text)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise RobustTuneError(
            f"{settings.name!r} does not encode a text by itself ({_reason(error)}): choose another model"
        ) from error
    if any(states.shape[:2] != text.input_ids.shape for states in encoded.tokens):
        raise RobustTuneError(f"{settings.name!r} does not return one state a token: choose another model")
    try:
        encoder(_some_tokens(encoder, settings.max_length))
    except (IndexError, RuntimeError, ValueError) as error:
        raise RobustTuneError(
            f"{settings.name!r} does not take texts of {settings.max_length} tokens ({_reason(error)}): "
            "lower text_encoder.max_length"
        ) from error
    if settings.pooling == "class" and not encoder.form.class_last:
        _check_class_token(encoder, text)
    if _depends_on_padding(encoder, text):
        encoder.form = padded_form(settings, settings.max_length, masked=True)
    return Widths(tuple(states.shape[-1] for states in encoded.tokens), encoded.pooled.shape[-1])


def _some_tokens(encoder: FrozenTransformersText, length: int) -> Tokens:
    """Return a text (1, length) of different tokens, none of which is special to the model."""
    config: Any = encoder.backbone.config
    special = {getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "cls", "sep", "mask")}
    ordinary = [number for number in range(min(getattr(config, "vocab_size", 64), 64)) if number not in special]
    ids = torch.tensor([[ordinary[i % len(ordinary)] for i in range(length)]])
    return Tokens(ids, torch.ones_like(ids, dtype=torch.bool))


def _depends_on_padding(encoder: FrozenTransformersText, text: Tokens) -> bool:
    """Return whether a text's states differ in a batch with a longer text."""
    alone = encoder(text.map(lambda tensor: tensor[:, :SHORT]))
    size = alone.tokens[0].shape[1]
    pad = getattr(encoder.backbone.config, "pad_token_id", None) or 0
    mask = torch.arange(text.input_ids.shape[1]) < size
    ids = torch.cat([text.input_ids, text.input_ids.masked_fill(~mask, pad)])
    padded = encoder(Tokens(ids, torch.stack([torch.ones_like(mask), mask])))
    pairs = [(padded.pooled[1:], alone.pooled)]
    pairs += [(states[1:, :size], own) for states, own in zip(padded.tokens, alone.tokens, strict=True)]
    return not all(_alike(one, other) for one, other in pairs)


def _check_class_token(encoder: FrozenTransformersText, text: Tokens) -> None:
    """Check that the first token sees the others; in a causal model it doesn't, and is the same for every text."""
    other = text.map(torch.clone)
    other.input_ids[:, 1:] = text.input_ids[:, :1]
    if torch.equal(encoder(text).pooled, encoder(other).pooled):
        raise RobustTuneError(
            f"the first token of a text does not see the others in {encoder.settings.name!r}: "
            "set text_encoder.pooling to end or mean"
        )


def _alike(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max().clamp(min=1e-6))


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200].rstrip(".:") or type(error).__name__
