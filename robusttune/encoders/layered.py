"""Encoders that return the tokens of several chosen layers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from robusttune.encoders.base import Encoder, FrozenImageEncoder, ImageEncoder
from robusttune.encoders.low_rank import LoRA
from robusttune.encoders.preprocessing import Preprocessing
from robusttune.errors import RobustTuneError


@dataclass(frozen=True, kw_only=True)
class LayeredEncoder(Encoder):
    """Settings of a frozen encoder that returns the tokens of several layers.

    Args:
        layers: Number of layers, evenly spaced up to the last one, or a list of layer numbers counted from 1.
        depth: Number of layers to run; the pooled embedding is read after the last of them. None runs all layers.
        lora: Low-rank adaptation: trained updates of the weights of some layers. None trains nothing in the encoder.
    """

    layers: int | list[int] = 4
    depth: int | None = None
    lora: LoRA | None = None

    @property
    def is_adapted(self) -> bool:
        """Return whether the encoder has trained updates, so that its features change in training."""
        return self.lora is not None

    @abstractmethod
    def save(self, folder: Path, updated: Mapping[str, Tensor] | None = None) -> None:
        """Write the model to a folder, see `Encoder.save`.

        Args:
            folder: Folder that is created.
            updated: Weights that replace those of the model, see `FrozenEncoder.updated_weights`.
        """

    def run_depth(self, own: int) -> int:
        """Return how many of a model's layers are run.

        Args:
            own: Number of layers that the model has.

        Raises:
            RobustTuneError: ``depth`` is not from 1 to ``own``.
        """
        depth = own if self.depth is None else self.depth
        if not 1 <= depth <= own:
            raise RobustTuneError(f"depth {depth} does not fit {self.name!r}, which has {own} layers: give 1 to {own}")
        return depth

    def layer_numbers(self, depth: int) -> list[int]:
        """Return the numbers of the chosen layers, ascending, counted from 1.

        Args:
            depth: Number of layers that are run.

        Raises:
            RobustTuneError: ``layers`` does not fit a model with ``depth`` layers.
        """
        if isinstance(self.layers, int):
            chosen = [math.ceil(depth * k / self.layers) for k in range(1, self.layers + 1)]
            fits = 1 <= self.layers <= depth
        else:
            chosen = sorted(self.layers)
            fits = bool(chosen) and len(set(chosen)) == len(chosen) and chosen[0] >= 1 and chosen[-1] <= depth
        if not fits:
            raise RobustTuneError(
                f"layers {self.layers} do not fit {self.name!r}, which has {depth}: "
                f"give a number from 1 to {depth}, or a list of different layer numbers in that range"
            )
        return chosen


@dataclass(frozen=True, kw_only=True)
class LayeredImageEncoder(LayeredEncoder, ImageEncoder):
    """Settings of a frozen image encoder that returns the tokens of several layers.

    Args:
        grid: Maximum height and width of a layer's feature map, in tokens. Larger maps are average-pooled to it.
    """

    grid: int = 7

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise RobustTuneError(f"image_encoder.grid is {self.grid}: give at least 1")


class FrozenLayeredImageEncoder(FrozenImageEncoder):
    """The common base of the modules that `LayeredImageEncoder` settings load."""

    def __init__(self, backbone: nn.Module, settings: LayeredImageEncoder, preprocessing: Preprocessing) -> None:
        super().__init__(backbone, settings, preprocessing)
        self.grid = settings.grid

    def to_tokens(self, maps: Tensor, prefix: Tensor | None) -> Tensor:
        """Flatten feature maps into tokens, average-pooling maps that are larger than the grid.

        Args:
            maps: Feature maps, shape (B, d, h, w).
            prefix: Tokens that go before those of the map (class token, registers), shape (B, p, d), or None.

        Returns:
            Tokens, shape (B, p + h' w', d), where h' and w' are at most ``grid``.
        """
        if max(maps.shape[-2:]) > self.grid:
            height, width = (min(extent, self.grid) for extent in maps.shape[-2:])
            maps = nn.functional.adaptive_avg_pool2d(maps, (height, width))
        tokens = maps.flatten(2).transpose(1, 2)
        return tokens if prefix is None else torch.cat([prefix, tokens], dim=1)
