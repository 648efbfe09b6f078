"""The form in which a text model expects its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.encoders.base import TextEncoder
from robusttune.types import Tokens

PADDED_TO_FULL_LENGTH = ("siglip", "siglip2")  # trained on texts of one length, whose padding is attended to
CLASS_TOKEN_LAST = ("xlnet",)


@dataclass(frozen=True)
class InputForm:
    """What a model expects besides tokens.

    Args:
        length: Number of tokens that every text is padded to; None for the longest of the batch.
        pad_id: Id of the padding token.
        left: Whether padding up to ``length`` comes first.
        masked: Whether the model is told what is padding.
        class_last: Whether the class token is the last one.
    """

    length: int | None = None
    pad_id: int = 0
    left: bool = False
    masked: bool = True
    class_last: bool = False

    def pad(self, tokens: Tokens) -> Tokens:
        """Pad (B, n) tokens to (B, N)."""
        if self.length is None:
            return tokens
        more = (0, max(0, self.length - tokens.input_ids.shape[1]))
        ids = tokens.input_ids.masked_fill(~tokens.attention_mask, self.pad_id)
        padded = Tokens(functional.pad(ids, more, value=self.pad_id), functional.pad(tokens.attention_mask, more))
        return padded.map(lambda tensor: self._shift(tensor, tokens, 1)) if self.left else padded

    def unpad(self, states: Tensor, tokens: Tokens) -> Tensor:
        """Return the states (B, n, d) of tokens (B, n) among those (B, N, d) of the padded ones."""
        if self.left:
            states = self._shift(states, tokens, -1)
        return states[:, : tokens.input_ids.shape[1]]

    def _shift(self, rows: Tensor, tokens: Tokens, direction: int) -> Tensor:
        """Rotate each row (N, ...) by its number of padding tokens, right (1) or left (-1)."""
        length = rows.shape[1]
        padding = length - tokens.attention_mask.sum(1, keepdim=True)
        place = (torch.arange(length, device=rows.device) - direction * padding) % length
        return rows[torch.arange(len(rows), device=rows.device).unsqueeze(1), place]


def input_form(settings: TextEncoder, backbone: nn.Module) -> InputForm:
    """Return the form that a model's type demands."""
    config: Any = backbone.config
    kind = config.model_type.removesuffix("_text_model")
    if kind in PADDED_TO_FULL_LENGTH:
        return padded_form(settings, config.max_position_embeddings, masked=False)
    return InputForm(class_last=kind in CLASS_TOKEN_LAST)


def padded_form(settings: TextEncoder, length: int, masked: bool) -> InputForm:
    """Return a form with one length for all texts, padded as the model's tokenizer does it."""
    tokenizer = settings.tokenizer()
    return InputForm(length, tokenizer.pad_id, tokenizer.pads_left, masked)
