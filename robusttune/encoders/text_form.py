"""The input format of a text model: padding, masking, and the position of its class token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.encoders.base import TextEncoder
from robusttune.types import Tokens

PADDED_TO_FULL_LENGTH = ("siglip", "siglip2")  # trained on texts of one length, with attention to padding
CLASS_TOKEN_LAST = ("xlnet",)


@dataclass(frozen=True)
class InputForm:
    """The input format of a text model.

    Args:
        length: Number of tokens that every text is padded to; None for the longest text of the batch.
        pad_id: Id of the padding token.
        left: True if padding up to ``length`` comes before the text.
        masked: True if the model receives an attention mask that excludes the padding.
        class_last: True if the class token is the last token of a text.
    """

    length: int | None = None
    pad_id: int = 0
    left: bool = False
    masked: bool = True
    class_last: bool = False

    def pad(self, tokens: Tokens) -> Tokens:
        """Pad tokens (B, n) to shape (B, N), where N is ``length``; return them unchanged if ``length`` is None."""
        if self.length is None:
            return tokens
        more = (0, max(0, self.length - tokens.input_ids.shape[1]))
        ids = tokens.input_ids.masked_fill(~tokens.attention_mask, self.pad_id)
        padded = Tokens(functional.pad(ids, more, value=self.pad_id), functional.pad(tokens.attention_mask, more))
        return padded.map(lambda tensor: self._shift(tensor, tokens, 1)) if self.left else padded

    def unpad(self, states: Tensor, tokens: Tokens) -> Tensor:
        """Remove the padding that `pad` has added from a model's output.

        Args:
            states: States of the padded tokens, shape (B, N, d).
            tokens: Tokens before padding, shape (B, n).

        Returns:
            States of the tokens before padding, shape (B, n, d).
        """
        if self.left:
            states = self._shift(states, tokens, -1)
        return states[:, : tokens.input_ids.shape[1]]

    def _shift(self, rows: Tensor, tokens: Tokens, direction: int) -> Tensor:
        """Rotate each row (N, ...) by its number of padding tokens, to the right (direction 1) or to the left (-1)."""
        length = rows.shape[1]
        padding = length - tokens.attention_mask.sum(1, keepdim=True)
        place = (torch.arange(length, device=rows.device) - direction * padding) % length
        return rows[torch.arange(len(rows), device=rows.device).unsqueeze(1), place]


def input_form(settings: TextEncoder, backbone: nn.Module) -> InputForm:
    """Return the input format that a model's type requires.

    Args:
        settings: Settings of the text encoder.
        backbone: Text model from transformers.
    """
    config: Any = backbone.config
    kind = config.model_type.removesuffix("_text_model")
    if kind in PADDED_TO_FULL_LENGTH:
        return padded_form(settings, config.max_position_embeddings, masked=False)
    return InputForm(class_last=kind in CLASS_TOKEN_LAST)


def padded_form(settings: TextEncoder, length: int, masked: bool) -> InputForm:
    """Return a format with one length for all texts, padded in the same direction as the model's tokenizer pads.

    Args:
        settings: Settings of the text encoder, whose tokenizer is loaded.
        length: Number of tokens that every text is padded to.
        masked: True if the model receives an attention mask that excludes the padding.
    """
    tokenizer = settings.tokenizer()
    return InputForm(length, tokenizer.pad_id, tokenizer.pads_left, masked)
