"""Checks of a text model's output, made with a few arbitrary tokens when the model is loaded."""

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
TOLERANCE = 1e-4  # relative to the largest state; far above rounding errors in float32


@torch.no_grad()
def probe(encoder: FrozenTransformersText) -> Widths:
    """Check that an encoder's output is usable, and return the widths of its outputs.

    If the states of a text depend on the amount of padding, the encoder's input format is changed: every text is then
    padded to ``max_length``, so that its features do not depend on the other texts of a batch.

    Args:
        encoder: Text encoder whose input format may be changed.

    Raises:
        RobustTuneError: The model needs inputs other than tokens, does not return one state per token, does not take
            ``max_length`` tokens, or its first token attends to no other token although ``pooling`` is ``class``.
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
    """Return one text of different tokens, shape (1, length), without special tokens."""
    config: Any = encoder.backbone.config
    special = {getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "cls", "sep", "mask")}
    ordinary = [number for number in range(min(getattr(config, "vocab_size", 64), 64)) if number not in special]
    ids = torch.tensor([[ordinary[i % len(ordinary)] for i in range(length)]])
    return Tokens(ids, torch.ones_like(ids, dtype=torch.bool))


def _depends_on_padding(encoder: FrozenTransformersText, text: Tokens) -> bool:
    """Return True if the states of a text change when a longer text is in the same batch."""
    alone = encoder(text.map(lambda tensor: tensor[:, :SHORT]))
    size = alone.tokens[0].shape[1]
    pad = getattr(encoder.backbone.config, "pad_token_id", None) or 0
    mask = torch.arange(text.input_ids.shape[1]) < size
    ids = torch.cat([text.input_ids, text.input_ids.masked_fill(~mask, pad)])
    padded = encoder(Tokens(ids, torch.stack([torch.ones_like(mask), mask])))
    pairs = [(padded.pooled[1:], alone.pooled)]
    pairs += [(states[1:, :size], own) for states, own in zip(padded.tokens, alone.tokens, strict=True)]
    return not all(_is_close(one, other) for one, other in pairs)


def _check_class_token(encoder: FrozenTransformersText, text: Tokens) -> None:
    """Check that the first token attends to the others. In a causal model it does not, and is the same for every text.

    Raises:
        RobustTuneError: The first token is the same for two different texts.
    """
    other = text.map(torch.clone)
    other.input_ids[:, 1:] = text.input_ids[:, :1]
    if torch.equal(encoder(text).pooled, encoder(other).pooled):
        raise RobustTuneError(
            f"the first token of a text does not see the others in {encoder.settings.name!r}: "
            "set text_encoder.pooling to end or mean"
        )


def _is_close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max().clamp(min=1e-6))


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200].rstrip(".:") or type(error).__name__
