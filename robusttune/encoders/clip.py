"""The image and text towers of a frozen CLIP, each split at the first layer that an adapter inserts tokens into."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
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
from robusttune.encoders.saved_files import licence_of, save_model
from robusttune.encoders.tokenization import Tokenizer
from robusttune.encoders.transformers_common import load_config, load_model, location
from robusttune.encoders.transformers_image import own_preprocessing
from robusttune.encoders.transformers_tokenizer import fast_tokenizer, save_tokenizer
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded, EncoderInputs, ImageSets, Tokens, Widths


@dataclass(frozen=True, kw_only=True)
class CLIPImageEncoder(ImageEncoder):
    """Settings of the vision tower of a CLIP from transformers, for adapters such as MMRL that change its upper layers.

    Args:
        first_layer: First layer that an adapter changes or inserts tokens into (``J`` in MMRL), counted from 1. The
            layers below it run without the adapter, so their output can be cached. One more than there are layers if
            none of them changes: then the cache holds the class token alone.

    Example:
        >>> import torch
        >>> encoder = CLIPImageEncoder(name="robusttune:demo_clip", weights="random", first_layer=2).load()
        >>> encoder(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).pooled.shape
        torch.Size([2, 128])
    """

    first_layer: int = 6

    def preprocessing(self) -> Preprocessing:
        """Return the preprocessing of the model's image processor, with this object's settings in place."""
        return self.override(own_preprocessing(self))

    def load(self) -> FrozenCLIPImage:
        """Build the frozen vision tower.

        Raises:
            RobustTuneError: The model is not a CLIP, or ``size`` or ``first_layer`` does not fit it.
        """
        return FrozenCLIPImage(self)

    def save(self, folder: Path) -> None:
        """Write the model to a folder, see `Encoder.save`."""
        save_model(load_clip(self), self, folder)

    def licence(self) -> str | None:
        """Return the name of the model's licence, or None if it is not known."""
        return licence_of(location(self))


@dataclass(frozen=True, kw_only=True)
class CLIPTextEncoder(TextEncoder):
    """Settings of the text tower of a CLIP from transformers, for adapters such as MMRL that change its upper layers.

    Args:
        first_layer: First layer that an adapter inserts tokens into, see `CLIPImageEncoder`.
        max_length: Maximum number of tokens per text, special tokens included; None for the tower's own maximum.

    Example:
        >>> settings = CLIPTextEncoder(name="robusttune:demo_clip", weights="random", first_layer=2)
        >>> tokenized = settings.tokenizer()(["a cat", "a photo of a small dog"])
        >>> settings.load()(tokenized.tokens).pooled.shape
        torch.Size([2, 128])
    """

    first_layer: int = 6
    max_length: int | None = None

    def tokenizer(self) -> Tokenizer:
        """Return the model's own tokenizer, truncating to ``max_length`` tokens.

        Raises:
            RobustTuneError: The model has no usable tokenizer, or takes fewer than ``max_length`` tokens.
        """
        return fast_tokenizer(self, self.max_length)

    def load(self) -> FrozenCLIPText:
        """Build the frozen text tower.

        Raises:
            RobustTuneError: The model is not a CLIP, or ``first_layer`` does not fit it.
        """
        return FrozenCLIPText(self)

    def save(self, folder: Path) -> None:
        """Write the model to a folder, see `Encoder.save`."""
        save_model(load_clip(self), self, folder)
        save_tokenizer(self, folder)

    def licence(self) -> str | None:
        """Return the name of the model's licence, or None if it is not known."""
        return licence_of(location(self))


class TowerShape(NamedTuple):
    """The sizes of a tower's upper layers, which determine the sizes of an adapter's weights.

    Attributes:
        layers: Number of upper layers.
        width: Width of their tokens (``d_v`` for images, ``d_t`` for texts).
        shared_width: Width of the embedding space that both towers share (``d_e``).
    """

    layers: int
    width: int
    shared_width: int


class UpperTower(nn.Module):
    """The upper layers of a tower, which an adapter inserts tokens into, and the output projection.

    Attributes:
        blocks: Layers, beginning with the first one that takes inserted tokens.
        norm: Layer norm before the projection.
        projection: Linear map into the embedding space that both towers share, weight of shape (d_e, d).
    """

    def __init__(self, blocks: list[Block], norm: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.blocks: Any = nn.ModuleList(blocks)
        self.norm: Any = norm
        self.projection = projection

    @property
    def shape(self) -> TowerShape:
        """Return the number of layers and their widths."""
        return TowerShape(len(self.blocks), self.projection.in_features, self.projection.out_features)

    def state(self, states: Tensor, place: Tensor | int, mask: Tensor | None) -> Tensor:
        """Run the last layer, if there is one, and return the state of one token of each row, shape (B, d).

        Args:
            states: States that enter it, shape (B, n, d).
            place: Position of the token in each row, shape (B,), int64, or in all rows.
            mask: Mask of the tokens that it attends to, shape (B, n), bool; None for all.
        """
        token = states[torch.arange(len(states), device=states.device), place]
        return self.blocks[-1].read(states, token.unsqueeze(1), mask) if len(self.blocks) else token

    def feature(self, states: Tensor) -> Tensor:
        """Return features of length 1, shape (B, d_e), from the last states of class or end tokens, shape (B, d)."""
        return unit(self.projection(self.norm(states)))


class FrozenCLIP(FrozenEncoder):
    """The common base of both CLIP towers.

    The features that it returns have one layer of ``tokens``, the states that enter the first layer of the adapter.
    ``pooled`` is the feature of the original CLIP, scaled to length 1.

    Attributes:
        upper: Layers that an adapter runs itself. They stay in memory when the layers below are released.
    """

    upper: UpperTower

    @abstractmethod
    def _run_lower(self, inputs: Any) -> Encoded:
        """Run the layers below the adapter. ``pooled`` of the result has width 0."""

    @abstractmethod
    def _original_feature(self, encoded: Encoded) -> Tensor:
        """Run the upper layers without an adapter and return the original CLIP's features, shape (B, d_e)."""

    def forward(self, inputs: Any) -> Encoded:
        """Run all layers of the original CLIP, and keep the states that enter the upper layers."""
        encoded = self._run_lower(inputs)
        return Encoded(self._original_feature(encoded), encoded.tokens, encoded.mask)

    @torch.no_grad()
    def encode_lower(self, inputs: EncoderInputs, untouched: bool) -> Encoded:
        """Return the states that enter the upper layers.

        Args:
            inputs: Inputs of the present rows, or their cached features.
            untouched: If True, also compute the features of the original CLIP; if False, ``pooled`` may have width 0.
        """
        return self.as_computed(inputs) if isinstance(inputs, Encoded) else self.compute(inputs, untouched)

    def compute(self, inputs: Any, pooled: bool) -> Encoded:
        """Encode inputs, without the upper layers if ``pooled`` is False, see `FrozenEncoder.encode`."""
        if isinstance(inputs, ImageSets) or pooled:
            return self(inputs)
        self.ready()
        return self._run_lower(inputs)

    def refuse_no_layers(self) -> None:
        """Check that there are upper layers.

        Raises:
            RobustTuneError: There are none.
        """
        if not len(self.upper.blocks):
            settings: Any = self.settings
            layers = settings.first_layer - 1
            raise RobustTuneError(
                f"first_layer {settings.first_layer} does not fit {settings.name!r}, whose tower has {layers} layers: "
                f"give 1 to {layers}"
            )

    def mean_over_images(self, sets: ImageSets) -> Encoded:
        """Average the features of each sample's images, and scale them to length 1; see `FrozenEncoder`.

        The mean of the states is of no use to an adapter, whose layers would have to run for each image.
        """
        encoded = super().mean_over_images(sets)
        return Encoded(unit(encoded.pooled), encoded.tokens, encoded.mask)

    def _split_layers(
        self, blocks: list[Block], settings: CLIPImageEncoder | CLIPTextEncoder
    ) -> tuple[list[Block], list[Block]]:
        """Split the layers before ``settings.first_layer``.

        Raises:
            RobustTuneError: The tower does not have that many layers.
        """
        if not 1 <= settings.first_layer <= len(blocks) + 1:
            raise RobustTuneError(
                f"first_layer {settings.first_layer} does not fit {settings.name!r}, whose tower has {len(blocks)} "
                f"layers: give 1 to {len(blocks)}, or {len(blocks) + 1} to change no layer"
            )
        return blocks[: settings.first_layer - 1], blocks[settings.first_layer - 1 :]


class FrozenCLIPImage(FrozenCLIP, FrozenImageEncoder):
    """The frozen vision tower that a `CLIPImageEncoder` loads."""

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
        below, above = self._split_layers([Block(layer) for layer in tower.encoder.layers], settings)
        self.backbone = nn.Sequential(tower.embeddings, tower.pre_layrnorm, *below)
        self.upper = UpperTower(above, tower.post_layernorm, clip.visual_projection)
        self.widths = self.measure_widths()

    def _run_lower(self, images: Tensor) -> Encoded:
        states = self.backbone(self.normalise(images))
        if not len(self.upper.blocks):
            states = states[:, :1]  # the class token
        return Encoded(states.new_zeros(len(states), 0), [states], all_real([states]))

    def _original_feature(self, encoded: Encoded) -> Tensor:
        states = encoded.tokens[0]
        for block in self.upper.blocks[:-1]:
            states = block(states)
        return self.upper.feature(self.upper.state(states, 0, None))


class FrozenCLIPText(FrozenCLIP, FrozenTextEncoder):
    """The frozen text tower that a `CLIPTextEncoder` loads.

    Attributes:
        logit_scale: CLIP's factor between cosine similarities and logits.
    """

    settings: CLIPTextEncoder

    def __init__(self, settings: CLIPTextEncoder) -> None:
        clip = load_clip(settings)
        del clip.vision_model, clip.visual_projection
        super().__init__(clip, settings)
        tower = clip.text_model
        below, above = self._split_layers([Block(layer) for layer in tower.encoder.layers], settings)
        self.logit_scale = float(clip.logit_scale.detach().exp())
        self.backbone = nn.ModuleDict({"embeddings": tower.embeddings, "blocks": nn.ModuleList(below)})
        self.upper = UpperTower(above, tower.final_layer_norm, clip.text_projection)
        self.widths = Widths((self.upper.shape.width,), self.upper.shape.shared_width)

    def feature_count(self, length: int) -> int:
        """Return how many numbers the features of a text with ``length`` tokens consist of."""
        return super().feature_count(length if len(self.upper.blocks) else 1)

    @cached_property
    def prompt_tokenizer(self) -> Tokenizer:
        """Return the tokenizer for class prompts, which may be as long as the tower allows."""
        return fast_tokenizer(self.settings, None)

    def _run_lower(self, tokens: Tokens) -> Encoded:
        # Attention is causal, so padding on the right does not affect the tokens of a text.
        backbone: Any = self.backbone
        states = backbone["embeddings"](tokens.input_ids)
        for block in backbone["blocks"]:
            states = block(states, causal=True)
        mask = tokens.attention_mask
        if not len(self.upper.blocks):
            states = states[torch.arange(len(states), device=states.device), mask.sum(1) - 1].unsqueeze(1)  # end tokens
            mask = mask[:, :1]
        return Encoded(states.new_zeros(len(states), 0), [states], [mask])

    def _original_feature(self, encoded: Encoded) -> Tensor:
        states, mask = encoded.tokens[0], encoded.mask[0]
        for block in self.upper.blocks[:-1]:
            states = block(states, causal=True)
        return self.upper.feature(self.upper.state(states, mask.sum(1) - 1, mask))


def unit(features: Tensor) -> Tensor:
    """Scale features to length 1, in float32 at least.

    Logits are cosine similarities times 100 or more, which would amplify rounding errors of a lower precision.
    """
    return functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def load_clip(settings: Encoder) -> Any:
    """Load the CLIP that the settings name.

    Raises:
        RobustTuneError: The model is not a CLIP, or cannot be loaded.
    """
    clip = load_model(settings, load_config(settings))
    if not isinstance(clip, CLIPModel):
        raise RobustTuneError(
            f"{settings.name!r} is a {type(clip).__name__}, and no CLIP: "
            "choose one such as openai/clip-vit-base-patch16, or the encoders TransformersImageEncoder and "
            "TransformersTextEncoder, which adapters cannot reach into"
        )
    return clip
