"""The two towers of a frozen CLIP, each cut where an adapter begins to put tokens of its own in."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel

from robusttune.encoders.base import (
    Encoder,
    FrozenEncoder,
    FrozenImageEncoder,
    FrozenTextEncoder,
    ImageEncoder,
    TextEncoder,
    all_real,
)
from robusttune.encoders.blocks import Block
from robusttune.encoders.preprocessing import Preprocessing
from robusttune.encoders.tokenization import Tokenizer
from robusttune.encoders.transformers_common import load_config, load_model
from robusttune.encoders.transformers_image import own_preprocessing
from robusttune.encoders.transformers_tokenizer import fast_tokenizer
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded, EncoderInputs, Tokens, Widths


@dataclass(frozen=True, kw_only=True)
class CLIPImageEncoder(ImageEncoder):
    """The vision tower of a CLIP of transformers, for adapters that reach into its upper layers.

    Args:
        first_layer: that an adapter puts tokens into, counted from 1; only what is below it runs, and can be cached,
            without the adapter.
    """

    first_layer: int = 6

    def preprocessing(self) -> Preprocessing:
        return self.override(own_preprocessing(self))

    def load(self) -> FrozenCLIPImage:
        return FrozenCLIPImage(self)


@dataclass(frozen=True, kw_only=True)
class CLIPTextEncoder(TextEncoder):
    """The text tower of a CLIP of transformers, for adapters that reach into its upper layers.

    Args:
        first_layer: see `CLIPImageEncoder`.
        max_length: most tokens that a sample's text keeps, special ones included; None for as many as the tower takes.
    """

    first_layer: int = 6
    max_length: int | None = None

    def tokenizer(self) -> Tokenizer:
        return fast_tokenizer(self, self.max_length)

    def load(self) -> FrozenCLIPText:
        return FrozenCLIPText(self)


class TowerShape(NamedTuple):
    """What an adapter has to know of a tower's upper layers.

    Attributes:
        layers: how many there are.
        width: of their tokens.
        shared_width: of the space that both towers share.
    """

    layers: int
    width: int
    shared_width: int


class UpperTower(nn.Module):
    """The layers of a tower that an adapter reaches into, and what follows them.

    Attributes:
        blocks: from the first layer that takes tokens on.
        norm: that features go through before they are projected.
        projection: into the space that both towers share, (d_e, d).
    """

    def __init__(self, blocks: list[Block], norm: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.blocks: Any = nn.ModuleList(blocks)
        self.norm: Any = norm
        self.projection = projection

    @property
    def shape(self) -> TowerShape:
        return TowerShape(len(self.blocks), self.projection.in_features, self.projection.out_features)

    def feature(self, states: Tensor) -> Tensor:
        """(B, d) last states of class or end tokens -> (B, d_e) features of length 1."""
        return unit(self.projection(self.norm(states)))


class FrozenCLIP(FrozenEncoder):
    """What both towers have in common.

    ``tokens`` has one layer, the states that enter the first layer that takes tokens; ``pooled`` is the feature of the
    untouched CLIP, of length 1.

    Attributes:
        upper: the layers that are left to an adapter; they stay when the weights below are released.
    """

    upper: UpperTower

    @abstractmethod
    def _below(self, inputs: Any) -> Encoded:
        """The states that enter the first layer that takes tokens; ``pooled`` is of no width."""

    @abstractmethod
    def _untouched(self, encoded: Encoded) -> Tensor:
        """(B, d_e), what CLIP itself makes of these states."""

    def forward(self, inputs: Any) -> Encoded:
        encoded = self._below(inputs)
        return Encoded(self._untouched(encoded), encoded.tokens, encoded.mask)

    @torch.no_grad()
    def enter(self, inputs: EncoderInputs, untouched: bool) -> Encoded:
        """What enters the upper layers.

        Args:
            inputs: of the rows that are present, or what was made of them before.
            untouched: whether the features of the untouched CLIP are wanted as well; if not, ``pooled`` may be empty.
        """
        if isinstance(inputs, Encoded):
            return self.as_computed(inputs)
        self.ready()
        return self.forward(inputs) if untouched else self._below(inputs)

    def _cut(
        self, blocks: list[Block], settings: CLIPImageEncoder | CLIPTextEncoder
    ) -> tuple[list[Block], list[Block]]:
        if not 1 <= settings.first_layer <= len(blocks):
            raise RobustTuneError(
                f"first_layer {settings.first_layer} does not fit {settings.name!r}, whose tower has {len(blocks)} "
                f"layers: give 1 to {len(blocks)}"
            )
        return blocks[: settings.first_layer - 1], blocks[settings.first_layer - 1 :]


class FrozenCLIPImage(FrozenCLIP, FrozenImageEncoder):
    """The module of a `CLIPImageEncoder`."""

    def __init__(self, settings: CLIPImageEncoder) -> None:
        clip = load_clip(settings)
        del clip.text_model, clip.text_projection, clip.logit_scale
        preprocessing, tower = settings.preprocessing(), clip.vision_model
        if preprocessing.size != tower.config.image_size:
            raise RobustTuneError(
                f"{settings.name!r} does not take images of {preprocessing.size} pixels: "
                f"set image_encoder.size to {tower.config.image_size}"
            )
        super().__init__(clip, settings, preprocessing)
        below, above = self._cut([Block(layer) for layer in tower.encoder.layers], settings)
        self.backbone = nn.Sequential(tower.embeddings, tower.pre_layrnorm, *below)
        self.upper = UpperTower(above, tower.post_layernorm, clip.visual_projection)
        self.widths = self.measure_widths()

    def _below(self, images: Tensor) -> Encoded:
        states = self.backbone(self.normalise(images))
        return Encoded(states.new_zeros(len(states), 0), [states], all_real([states]))

    def _untouched(self, encoded: Encoded) -> Tensor:
        states = encoded.tokens[0]
        for block in self.upper.blocks[:-1]:
            states = block(states)
        return self.upper.feature(_last_layer(self.upper.blocks[-1], states, states[:, :1], None))


class FrozenCLIPText(FrozenCLIP, FrozenTextEncoder):
    """The module of a `CLIPTextEncoder`.

    Attributes:
        logit_scale: what CLIP multiplies cosines with, to have logits.
    """

    settings: CLIPTextEncoder

    def __init__(self, settings: CLIPTextEncoder) -> None:
        clip = load_clip(settings)
        del clip.vision_model, clip.visual_projection
        super().__init__(clip, settings)
        tower = clip.text_model
        below, above = self._cut([Block(layer) for layer in tower.encoder.layers], settings)
        self.logit_scale = float(clip.logit_scale.detach().exp())
        self.backbone = nn.ModuleDict({"embeddings": tower.embeddings, "blocks": nn.ModuleList(below)})
        self.upper = UpperTower(above, tower.final_layer_norm, clip.text_projection)
        self.widths = Widths((self.upper.shape.width,), self.upper.shape.shared_width)

    @cached_property
    def prompt_tokenizer(self) -> Tokenizer:
        """As that of samples, but for prompts, which may be as long as the tower takes."""
        return fast_tokenizer(self.settings, None)

    def _below(self, tokens: Tokens) -> Encoded:
        # Attention is causal, so what pads a text on the right can reach none of its tokens.
        backbone: Any = self.backbone
        states = backbone["embeddings"](tokens.input_ids)
        for block in backbone["blocks"]:
            states = block(states, causal=True)
        return Encoded(states.new_zeros(len(states), 0), [states], [tokens.attention_mask])

    def _untouched(self, encoded: Encoded) -> Tensor:
        states, mask = encoded.tokens[0], encoded.mask[0]
        for block in self.upper.blocks[:-1]:
            states = block(states, causal=True)
        end = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1].unsqueeze(1)
        return self.upper.feature(_last_layer(self.upper.blocks[-1], states, end, mask))


def _last_layer(block: Block, states: Tensor, asking: Tensor, mask: Tensor | None) -> Tensor:
    """(B, n, d) -> (B, d), what the last layer makes of the one token (B, 1, d) that is read."""
    attended = block.read(block.norm1(asking), block.norm1(states), mask)
    return block.finish(asking, attended).squeeze(1)


def unit(features: Tensor) -> Tensor:
    """At length 1, in float32 at least: cosines are multiplied by 100 and more before they are compared."""
    return functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def load_clip(settings: Encoder) -> Any:
    """The CLIP that the settings name.

    Raises:
        RobustTuneError: it is another kind of model.
    """
    clip = load_model(settings, load_config(settings))
    if not isinstance(clip, CLIPModel):
        raise RobustTuneError(
            f"{settings.name!r} is a {type(clip).__name__}, and no CLIP: "
            "choose one such as openai/clip-vit-base-patch16, or the encoders TransformersImageEncoder and "
            "TransformersTextEncoder, which adapters cannot reach into"
        )
    return clip
