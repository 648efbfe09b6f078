"""Encoders of which several layers are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robusttune.encoders.base import Encoder, FrozenImageEncoder, ImageEncoder
from robusttune.encoders.preprocessing import Preprocessing
from robusttune.errors import RobustTuneError


@dataclass(frozen=True, kw_only=True)
class LayeredEncoder(Encoder):
    """Settings of a frozen encoder that tells what its layers have made of an input.

    Args:
        layers: that many layers evenly spaced up to the last, or a list of layer numbers counted from 1.
        depth: run only that many layers, and take the pooled embedding from there too; None for all.
    """

    layers: int | list[int] = 4
    depth: int | None = None

    def run_depth(self, own: int) -> int:
        """How many of a model's own layers are run.

        Raises:
            RobustTuneError: it has fewer than were asked for.
        """
        depth = own if self.depth is None else self.depth
        if not 1 <= depth <= own:
            raise RobustTuneError(f"depth {depth} does not fit {self.name!r}, which has {own} layers: give 1 to {own}")
        return depth

    def layer_numbers(self, depth: int) -> list[int]:
        """The chosen layers of a model of ``depth`` layers, ascending, counted from 1."""
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
    """Settings of a frozen image encoder that tells what its layers have made of an image.

    Args:
        grid: maps larger than this many tokens a side are average-pooled down to it.
    """

    grid: int = 7

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise RobustTuneError(f"image_encoder.grid is {self.grid}: give at least 1")


class FrozenLayeredImageEncoder(FrozenImageEncoder):
    """The module of a `LayeredImageEncoder`."""

    def __init__(self, backbone: nn.Module, settings: LayeredImageEncoder, preprocessing: Preprocessing) -> None:
        super().__init__(backbone, settings, preprocessing)
        self.grid = settings.grid

    def to_tokens(self, maps: Tensor, prefix: Tensor | None) -> Tensor:
        """Maps (B, d, h, w), pooled to the grid where they are larger, as tokens after the prefix (B, p, d)."""
        if max(maps.shape[-2:]) > self.grid:
            height, width = (min(extent, self.grid) for extent in maps.shape[-2:])
            maps = nn.functional.adaptive_avg_pool2d(maps, (height, width))
        tokens = maps.flatten(2).transpose(1, 2)
        return tokens if prefix is None else torch.cat([prefix, tokens], dim=1)
