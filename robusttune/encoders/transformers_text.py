"""Text encoders from transformers that return hidden states: BERT, RoBERTa, MiniLM, the text tower of CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from robusttune.encoders.base import FrozenTextEncoder, TextEncoder
from robusttune.encoders.layered import LayeredEncoder
from robusttune.encoders.positions import count_positions
from robusttune.encoders.saved_files import licence_of, save_model
from robusttune.encoders.text_form import input_form
from robusttune.encoders.text_probe import probe
from robusttune.encoders.tokenization import Tokenizer
from robusttune.encoders.transformers_common import chosen_layers, load_config, load_tower, load_whole, location
from robusttune.encoders.transformers_tokenizer import fast_tokenizer, save_tokenizer
from robusttune.encoders.weights import replace_weights
from robusttune.types import Encoded, Tokens

Pooling = Literal["mean", "class", "end"]


@dataclass(frozen=True, kw_only=True)
class TransformersTextEncoder(LayeredEncoder, TextEncoder):
    """Settings of a text encoder from transformers, named by its repository or a local folder.

    Args:
        pooling: Source of ``pooled``: the ``mean`` over real tokens, the first real token (``class``; XLNet's is the
            last) or the last one (``end``, as in CLIP), each after the model's final layer norm. SigLIP reads a text
            padded to its full length, and ``end`` is its last position, even if that is padding.
        max_length: Maximum number of tokens per text, special tokens included.

    Example:
        >>> settings = TransformersTextEncoder(name="robusttune:demo_clip", weights="random", layers=2, max_length=16)
        >>> settings.load().widths
        Widths(layers=(128, 128), pooled=128)
    """

    pooling: Pooling = "mean"
    max_length: int = 64

    def tokenizer(self) -> Tokenizer:
        """Return the model's own tokenizer, truncating to ``max_length`` tokens.

        Raises:
            RobustTuneError: The model has no usable tokenizer, or takes fewer than ``max_length`` tokens.
        """
        return fast_tokenizer(self, self.max_length)

    def load(self) -> FrozenTransformersText:
        """Build the frozen text encoder.

        Raises:
            RobustTuneError: The model does not take texts of ``max_length`` tokens, its output is not usable (see
                `robusttune.encoders.text_probe.probe`), or it cannot be loaded.
        """
        return FrozenTransformersText(self)

    def save(self, folder: Path, updated: Mapping[str, Tensor] | None = None) -> None:
        """Write the model to a folder, see `LayeredEncoder.save`."""
        whole = load_whole(self, "text_model")
        replace_weights(getattr(whole, "text_model", whole), updated)
        save_model(whole, self, folder)
        save_tokenizer(self, folder)

    def licence(self) -> str | None:
        """Return the name of the model's licence, or None if it is not known."""
        return licence_of(location(self))


class FrozenTransformersText(FrozenTextEncoder):
    """The frozen text encoder that a `TransformersTextEncoder` loads.

    The states and masks that it returns belong to the text's own tokens, even if the model needs more padding.
    """

    settings: TransformersTextEncoder

    def __init__(self, settings: TransformersTextEncoder) -> None:
        positions = count_positions(load_config(settings))
        if positions is not None and positions < settings.max_length:
            settings.tokenizer()  # raises the error that names the maximum length
        super().__init__(load_tower(settings, "text_model"), settings)
        self.adapt(settings.lora, self.backbone.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
        self.form = input_form(settings, self.backbone)
        self.widths = probe(self)

    def forward(self, tokens: Tokens) -> Encoded:
        """Encode ``B`` tokenised texts into pooled embeddings and tokens of the chosen layers."""
        padded = self.form.pad(tokens)
        output = self.backbone(
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask.long() if self.form.masked else None,
            output_hidden_states=True,
        )
        # Only last_hidden_state has passed the final layer norm; the last entry of CLIP's hidden_states has not.
        pooled = self._pool(output.last_hidden_state, tokens)
        layers = [self.form.unpad(states, tokens) for states in chosen_layers(self.settings, output.hidden_states)]
        return Encoded(pooled, layers, [tokens.attention_mask] * len(layers))

    def _pool(self, states: Tensor, tokens: Tokens) -> Tensor:
        """Return the pooled embeddings, shape (B, d).

        Args:
            states: Last states of the padded tokens, shape (B, N, d).
            tokens: Tokens before padding, shape (B, n).
        """
        pooling = self.settings.pooling
        if pooling == "end" and not self.form.masked:
            return states[:, -1]
        states, mask = self.form.unpad(states, tokens), tokens.attention_mask
        if pooling == "end" or (pooling == "class" and self.form.class_last):
            return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
        if pooling == "class":
            return states[:, 0]
        return (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
