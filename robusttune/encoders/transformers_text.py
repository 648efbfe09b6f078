"""Any text encoder of transformers that returns hidden states: BERT, RoBERTa, MiniLM, CLIP's text tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robusttune.encoders.base import FrozenTextEncoder, TextEncoder
from robusttune.encoders.layered import LayeredEncoder
from robusttune.encoders.positions import count_positions
from robusttune.encoders.text_form import input_form
from robusttune.encoders.text_probe import probe
from robusttune.encoders.tokenization import Tokenizer
from robusttune.encoders.transformers_common import chosen_layers, load_config, load_tower
from robusttune.encoders.transformers_tokenizer import fast_tokenizer
from robusttune.types import Encoded, Tokens

Pooling = Literal["mean", "class", "end"]


@dataclass(frozen=True, kw_only=True)
class TransformersTextEncoder(LayeredEncoder, TextEncoder):
    """A text encoder of transformers, by its published name or a local folder.

    Args:
        pooling: what ``pooled`` is: the ``mean`` over real tokens, the first (``class``; XLNet's is the last) or the
            last (``end``, CLIP's) real token, each after the model's final layer norm. SigLIP reads a text padded to
            its full length, and ``end`` is its last position, be it padding or not.
        max_length: most tokens that a text keeps, special ones included.
    """

    pooling: Pooling = "mean"
    max_length: int = 64

    def tokenizer(self) -> Tokenizer:
        return fast_tokenizer(self, self.max_length)

    def load(self) -> FrozenTransformersText:
        return FrozenTransformersText(self)


class FrozenTransformersText(FrozenTextEncoder):
    """The module of a `TransformersTextEncoder`.

    The states and the mask it returns are those of the text's own tokens, whatever padding the model sees.
    """

    settings: TransformersTextEncoder

    def __init__(self, settings: TransformersTextEncoder) -> None:
        positions = count_positions(load_config(settings))
        if positions is not None and positions < settings.max_length:
            settings.tokenizer()  # refuses it, and says what fits
        super().__init__(load_tower(settings, "text_model"), settings)
        self.form = input_form(settings, self.backbone)
        self.widths = probe(self)

    def forward(self, tokens: Tokens) -> Encoded:
        given = self.form.pad(tokens)
        output = self.backbone(
            input_ids=given.input_ids,
            attention_mask=given.attention_mask.long() if self.form.masked else None,
            output_hidden_states=True,
        )
        # A CLIP's last hidden state in the list lacks the final layer norm that last_hidden_state has had.
        pooled = self._pool(output.last_hidden_state, given, tokens)
        layers = [self.form.unpad(states, tokens) for states in chosen_layers(self.settings, output.hidden_states)]
        return Encoded(pooled, layers, [tokens.attention_mask] * len(layers))

    def _pool(self, states: Tensor, given: Tokens, tokens: Tokens) -> Tensor:
        """Return (B, d) of the states (B, N, d) of what the model was given."""
        pooling = self.settings.pooling
        if pooling == "end" and not self.form.masked:
            return states[:, -1]
        states, mask = self.form.unpad(states, tokens), tokens.attention_mask
        if pooling == "end" or (pooling == "class" and self.form.class_last):
            return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
        if pooling == "class":
            return states[:, 0]
        return (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
