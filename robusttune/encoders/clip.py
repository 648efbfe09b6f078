"""The towers of a frozen CLIP or SigLIP, each split at the first layer that an adapter inserts tokens into."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.encoders.base import (
    FrozenEncoder,
    FrozenImageEncoder,
    FrozenTextEncoder,
    ImageEncoder,
    TextEncoder,
    all_real,
)
from robusttune.encoders.blocks import Block
from robusttune.encoders.clip_parts import image_parts, load_clip, load_one_tower, text_parts
from robusttune.encoders.preprocessing import Preprocessing
from robusttune.encoders.saved_files import licence_of, save_model
from robusttune.encoders.text_form import input_form
from robusttune.encoders.tokenization import Tokenizer
from robusttune.encoders.transformers_common import location
from robusttune.encoders.transformers_image import own_preprocessing
from robusttune.encoders.transformers_tokenizer import fast_tokenizer, save_tokenizer
from robusttune.encoders.upper_tower import UpperTower, unit
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded, EncoderInputs, ImageSets, Tokens, Widths


@dataclass(frozen=True, kw_only=True)
class CLIPImageEncoder(ImageEncoder):
    """Settings of the vision tower of a CLIP or SigLIP from transformers, for adapters that change its upper layers.

    Any ``CLIPModel`` or ``SiglipModel`` works, among the latter SigLIP 2 of a fixed resolution, and MMRL and zero-shot
    classification run on it. A SigLIP 2 for images of any shape (NaFlex) is refused.

    Args:
        first_layer: First layer that an adapter changes or inserts tokens into (``J`` in MMRL), counted from 1. The
            layers below it run without the adapter, so their output can be cached. One more than there are layers if
            none of them changes: then the cache holds the class token alone (SigLIP: the patches).

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
            RobustTuneError: The model is neither a CLIP nor a SigLIP, or ``size`` or ``first_layer`` does not fit it.
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
    """Settings of the text tower of a CLIP or SigLIP from transformers, for adapters that change its upper layers.

    Any ``CLIPModel`` or ``SiglipModel`` works, among the latter SigLIP 2 of a fixed resolution, and MMRL and zero-shot
    classification run on it. A SigLIP 2 for images of any shape (NaFlex) is refused.

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
            RobustTuneError: The model is neither a CLIP nor a SigLIP, or ``first_layer`` does not fit it.
        """
        return FrozenCLIPText(self)

    def save(self, folder: Path) -> None:
        """Write the model to a folder, see `Encoder.save`."""
        save_model(load_clip(self), self, folder)
        save_tokenizer(self, folder)

    def licence(self) -> str | None:
        """Return the name of the model's licence, or None if it is not known."""
        return licence_of(location(self))


class FrozenCLIP(FrozenEncoder):
    """The common base of both towers of a CLIP or a SigLIP.

    The features that it returns have one layer of ``tokens``, the states that enter the first layer of the adapter.
    ``pooled`` is the feature of the original model, scaled to length 1.

    Attributes:
        upper: Layers that an adapter runs itself. They stay in memory when the layers below are released.
    """

    upper: UpperTower

    @abstractmethod
    def _run_lower(self, inputs: Any) -> Encoded:
        """Run the layers below the adapter. ``pooled`` of the result has width 0."""

    def _original_feature(self, encoded: Encoded) -> Tensor:
        """Run the upper layers without an adapter and return the original model's features, shape (B, d_e)."""
        states, mask, upper = encoded.tokens[0], encoded.mask[0], self.upper
        for block in upper.blocks[:-1]:
            states = block(states, causal=upper.causal)
        read = upper.read(states, mask)
        if len(upper.blocks):
            read = upper.blocks[-1].read_some(states, read, mask if upper.causal else None)
        return upper.read_out(read)

    def forward(self, inputs: Any) -> Encoded:
        """Run all layers of the original model, and keep the states that enter the upper layers."""
        encoded = self._run_lower(inputs)
        return Encoded(self._original_feature(encoded), encoded.tokens, encoded.mask)

    @torch.no_grad()
    def encode_lower(self, inputs: EncoderInputs, untouched: bool) -> Encoded:
        """Return the states that enter the upper layers.

        Args:
            inputs: Inputs of the present rows, or their cached features.
            untouched: If True, also compute the features of the original model; if False, ``pooled`` may have width 0.
        """
        return self.as_computed(inputs) if isinstance(inputs, Encoded) else self.compute(inputs, untouched)

    def compute(self, inputs: Any, pooled: bool) -> Encoded:
        """Encode inputs, without the upper layers if ``pooled`` is False, see `FrozenEncoder.encode`."""
        if isinstance(inputs, ImageSets) or pooled:
            return self(inputs)
        self.ready()
        return self._run_lower(inputs)

    @property
    def is_siglip(self) -> bool:
        """Return True for a tower of a SigLIP, which has no class token and whose texts are not causal."""
        return self.upper.reads in ("last", "all")

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
        model = load_one_tower(settings, ("text_model", "text_projection", "logit_scale", "logit_bias"))
        preprocessing, own_size = settings.preprocessing(), model.vision_model.config.image_size
        if preprocessing.size != own_size:
            raise RobustTuneError(
                f"{settings.name!r} does not take images of {preprocessing.size} pixels: "
                f"set image_encoder.size to {own_size}"
            )
        super().__init__(model, settings, preprocessing)
        parts = image_parts(model)
        below, above = self._split_layers([Block(layer) for layer in parts.layers], settings)
        self.backbone = nn.Sequential(*parts.entry, *below)
        self.upper = UpperTower(above, parts.norm, parts.projection, parts.reads)
        self.widths = self.measure_widths()

    def _run_lower(self, images: Tensor) -> Encoded:
        states = self.backbone(self.normalise(images))
        if not len(self.upper.blocks):
            states = self.upper.read(states)
        return Encoded(states.new_zeros(len(states), 0), [states], all_real([states]))


class FrozenCLIPText(FrozenCLIP, FrozenTextEncoder):
    """The frozen text tower that a `CLIPTextEncoder` loads.

    SigLIP was trained on texts of one length with attention to their padding, so its texts are padded to that length,
    and their masks are True everywhere.

    Attributes:
        logit_scale: The model's factor between cosine similarities and logits.
        form: Padding that the model was trained with.
    """

    settings: CLIPTextEncoder

    def __init__(self, settings: CLIPTextEncoder) -> None:
        model = load_one_tower(settings, ("vision_model", "visual_projection"))
        super().__init__(model, settings)
        parts = text_parts(model)
        below, above = self._split_layers([Block(layer) for layer in parts.layers], settings)
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.form = input_form(settings, model.text_model)
        self.backbone = nn.ModuleDict({"embeddings": parts.entry[0], "blocks": nn.ModuleList(below)})
        self.upper = UpperTower(above, parts.norm, parts.projection, parts.reads)
        self.widths = Widths((self.upper.shape.width,), self.upper.shape.shared_width)

    @cached_property
    def prompt_tokenizer(self) -> Tokenizer:
        """Return the tokenizer for class prompts, which may be as long as the tower allows."""
        return fast_tokenizer(self.settings, None)

    def feature_count(self, length: int) -> int:
        """Return how many numbers the features of a text consist of, see `FrozenTextEncoder.feature_count`."""
        return super().feature_count((self.form.length or length) if len(self.upper.blocks) else 1)

    def _run_lower(self, tokens: Tokens) -> Encoded:
        # Where attention is causal, padding on the right does not affect the tokens of a text.
        backbone: Any = self.backbone
        states = backbone["embeddings"](self.form.pad(tokens).input_ids)
        for block in backbone["blocks"]:
            states = block(states, causal=self.upper.causal)
        if not len(self.upper.blocks):
            states = self.upper.read(states, tokens.attention_mask)
        mask = tokens.attention_mask if self.upper.causal and len(self.upper.blocks) else all_real([states])[0]
        return Encoded(states.new_zeros(len(states), 0), [states], [mask])
