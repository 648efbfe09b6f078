"""Any text encoder of transformers that returns hidden states: BERT, RoBERTa, MiniLM, CLIP's text tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from robusttune.encoders.base import FrozenTextEncoder, TextEncoder
from robusttune.encoders.layered import LayeredEncoder
from robusttune.encoders.preprocessing import Tokenizer
from robusttune.encoders.transformers_common import chosen_layers, load_config, load_tower, location
from robusttune.encoders.weights import fetching
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded, Tokens, Widths

Pooling = Literal["mean", "class", "end"]


@dataclass(frozen=True, kw_only=True)
class TransformersTextEncoder(LayeredEncoder, TextEncoder):
    """A text encoder of transformers, by its published name or a local folder.

    Args:
        pooling: what ``pooled`` is: the ``mean`` over real tokens, the first (``class``) or the last (``end``, CLIP's)
            real token, each after the model's final layer norm.
        max_length: most tokens that a text keeps, special ones included.
    """

    pooling: Pooling = "mean"
    max_length: int = 64

    def tokenizer(self) -> Tokenizer:
        return fast_tokenizer(self, self.max_length)

    def load(self) -> FrozenTransformersText:
        return FrozenTransformersText(self)


def fast_tokenizer(settings: TextEncoder, max_length: int | None) -> Tokenizer:
    """The model's own, cutting texts at ``max_length`` tokens, or, where it is None, at the most the model takes.

    Raises:
        RobustTuneError: it has no fast one, or does not take that many tokens.
    """
    config = load_config(settings)
    with fetching(settings.name, settings.weights):
        backend = AutoTokenizer.from_pretrained(**location(settings), use_fast=True)
    if not isinstance(backend, PreTrainedTokenizerFast):
        raise RobustTuneError(f"{settings.name!r} has no fast tokenizer: choose a model that has tokenizer.json")
    positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", backend.model_max_length)
    longest = min(positions, backend.model_max_length)
    least = backend.num_special_tokens_to_add() + 1  # with fewer nothing would be cut at all
    length = longest if max_length is None else max_length
    if not least <= length <= longest:
        raise RobustTuneError(
            f"max_length {length} does not fit {settings.name!r}: give a number from {least} to {longest}"
        )
    return Tokenizer(backend.backend_tokenizer, length, backend.pad_token_id or 0)


class FrozenTransformersText(FrozenTextEncoder):
    """The module of a `TransformersTextEncoder`."""

    settings: TransformersTextEncoder

    def __init__(self, settings: TransformersTextEncoder) -> None:
        super().__init__(load_tower(settings, "text_model"), settings)
        two_tokens = Tokens(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool))
        with torch.no_grad():
            encoded = self(two_tokens)
        self.widths = Widths(tuple(layer.shape[-1] for layer in encoded.tokens), encoded.pooled.shape[-1])

    def forward(self, tokens: Tokens) -> Encoded:
        output = self.backbone(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask.long(), output_hidden_states=True
        )
        # A CLIP's last hidden state in the list lacks the final layer norm that last_hidden_state has had.
        pooled = _pool(output.last_hidden_state, tokens.attention_mask, self.settings.pooling)
        layers = chosen_layers(self.settings, output.hidden_states)
        return Encoded(pooled, layers, [tokens.attention_mask] * len(layers))


def _pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """(B, n, d) and (B, n) -> (B, d)."""
    if pooling == "class":
        return states[:, 0]
    if pooling == "end":
        return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
    return (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
