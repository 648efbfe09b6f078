"""MMRL and MMRL++: tokens out of one learned space go into the upper layers of both towers of a frozen CLIP.

"MMRL: Multi-Modal Representation Learning for Vision-Language Models" (CVPR 2025, arXiv 2503.08497), and its extension
MMRL++ (arXiv 2505.10088). What the published implementation computes over and over is computed once here: nothing runs
on padding, on what lies below the first layer that takes tokens, or on tokens of the last layer that nobody reads, and
the beginning that all prompts share runs once for all of them, see `text_features`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robusttune.encoders.blocks import Block
from robusttune.encoders.clip import TowerShape, UpperTower, unit
from robusttune.errors import RobustTuneError
from robusttune.models.prompts import Packed
from robusttune.models.runner import Runner


@dataclass(frozen=True)
class MMRL:
    """Settings of `MMRLNetwork`. MMRL++ is ``beta: 0.9, residual_rank: 4, projection_rank: 64``.

    Args:
        space_tokens: tokens ``K`` of the representation space.
        space_width: their width ``d_r``.
        beta: share of the space's own tokens at each layer but the first that takes them, in (0, 1]; the rest is what
            the layer below has made of its tokens. 1 overwrites these.
        residual_rank: None for a linear map for each layer; else one map for all layers of a tower, to which each adds
            one of this rank.
        projection_rank: None for a projection of representation features of their own; else CLIP's, to which one of
            this rank is added.

    Raises:
        RobustTuneError: a number is out of its range.
    """

    space_tokens: int = 5
    space_width: int = 512
    beta: float = 1.0
    residual_rank: int | None = None
    projection_rank: int | None = None

    def __post_init__(self) -> None:
        for name in ("space_tokens", "space_width", "residual_rank", "projection_rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RobustTuneError(f"model.adapter.{name} is {value}: give at least 1")
        if not 0 < self.beta <= 1:  # not a number is none of it
            raise RobustTuneError(f"model.adapter.beta is {self.beta}: give a share above 0, and of at most 1")


class SpaceTokens(NamedTuple):
    """What the space puts into the towers: (layers, K, d) for each."""

    image: Tensor
    text: Tensor


class MMRLNetwork(nn.Module):
    """All that MMRL trains. The frozen layers that it reaches into are handed to it.

    Attributes:
        run: runs each of these layers.
    """

    run = Runner()

    def __init__(self, settings: MMRL, image: TowerShape, text: TowerShape) -> None:
        super().__init__()
        self.beta = settings.beta
        self.space = nn.Parameter(torch.randn(settings.space_tokens, settings.space_width) * 0.02)
        maps = LayerMaps if settings.residual_rank is None else ResidualMaps
        self.image_maps, self.text_maps = (maps(settings, t.layers, t.width) for t in (image, text))
        self.projection = Projection(image) if settings.projection_rank is None else ResidualProjection(settings, image)

    def tokens(self) -> SpaceTokens:
        """The tokens of each layer, which are the same for all samples."""
        return SpaceTokens(self.image_maps(self.space), self.text_maps(self.space))

    def image_features(self, upper: UpperTower, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Class and representation features, (B, d_e) of length 1.

        Args:
            upper: the layers that tokens go into.
            states: (B, n, d) that enter them, the class token first.
            tokens: (layers, K, d).
        """
        space = None
        for block, own in zip(upper.blocks[:-1], tokens[:-1], strict=True):
            space, states = self.run(self._image_layer, block, self._mixed(own.unsqueeze(0), space), states)
        space = self._mixed(tokens[-1].unsqueeze(0), space)
        return self.run(self._image_end, upper, space, states)

    def text_features(self, upper: UpperTower, texts: Packed, tokens: Tensor) -> Tensor:
        """(C, d_e) of length 1, one for each text.

        Attention is causal. So what all texts begin with, the start token, the space's tokens and the opening words of
        a template, is the same whatever follows: it runs once, and each text looks at its keys and values.

        Args:
            upper: the layers that tokens go into.
            texts: the states that enter them.
            tokens: (layers, K, d).
        """
        count, space = tokens.shape[1], None
        start, rest, mask = texts.shared[:1], torch.cat([texts.shared[1:], texts.states]), texts.mask(count)
        for block, own in zip(upper.blocks[:-1], tokens[:-1], strict=True):
            space = self._mixed(own, space)
            start, space, rest = self.run(self._text_layer, block, start, space, rest, texts, mask)
        return self.run(self._text_end, upper, start, self._mixed(tokens[-1], space), rest, texts)

    def _image_layer(self, block: Block, space: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """What a layer makes of the tokens that are put into it, (1 or B, K, d), and of states (B, n, d)."""
        batch, count = len(states), space.shape[1]
        normed_space, normed = block.norm1(space), block.norm1(states)
        key_value = torch.cat([_for_each(block.key_value(normed_space), batch), block.key_value(normed)], 1)
        if self.beta == 1:  # what becomes of the space's tokens is overwritten
            return space, block.finish(states, block.attend(block.query(normed), key_value))
        states = torch.cat([_for_each(space, batch), states], 1)
        normed = torch.cat([_for_each(normed_space, batch), normed], 1)
        states = block.finish(states, block.attend(block.query(normed), key_value))
        space, states = _cut(states, count, dim=1)
        return space, states

    def _image_end(self, upper: UpperTower, space: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Class and representation features, (B, d_e), out of what enters the last layer."""
        block, count = upper.blocks[-1], space.shape[1]
        states = torch.cat([_for_each(space, len(states)), states], 1)
        normed = block.norm1(states)
        read = slice(count + 1)  # of all tokens only the space's and, after them, the class token
        states = block.finish(states[:, read], block.read(normed[:, read], normed))
        return upper.feature(states[:, -1]), unit(self.projection(upper, upper.norm(states[:, :-1]).mean(1)))

    def _text_layer(
        self, block: Block, start: Tensor, space: Tensor, rest: Tensor, texts: Packed, mask: Tensor
    ) -> tuple[Tensor, ...]:
        """What a layer makes of the start token (1, d), of those that are put into it (K, d), and of all others."""
        count = len(space)
        line = count + len(texts.shared)  # tokens that all texts begin with
        states = torch.cat([start, space, rest])
        normed = block.norm1(states)
        shared_query, query = _cut(block.query(normed), line)
        shared, key_value = _cut(block.key_value(normed), line)
        begun = block.attend(shared_query.unsqueeze(0), shared.unsqueeze(0), causal=True).squeeze(0)
        gone_on = block.attend(texts.pad(query), texts.pad(key_value, shared), mask)
        states = block.finish(states, torch.cat([begun, texts.unpad(gone_on)]))
        return _cut(states, 1, count)

    def _text_end(self, upper: UpperTower, start: Tensor, space: Tensor, rest: Tensor, texts: Packed) -> Tensor:
        """(C, d_e) features out of what enters the last layer."""
        block, count = upper.blocks[-1], len(space)
        line = count + len(texts.shared)
        end = line + texts.end
        states = torch.cat([start, space, rest])
        normed = block.norm1(states)
        shared, own = _cut(normed, line)
        attended = block.read(normed[end].unsqueeze(1), texts.pad(own, shared), texts.mask_of_end(count)).squeeze(1)
        return upper.feature(block.finish(states[end], attended))

    def _mixed(self, own: Tensor, below: Tensor | None) -> Tensor:
        """What goes into a layer: its own tokens (K, d), or these and (..., K, d) that came out of the layer below."""
        return own if below is None or self.beta == 1 else self.beta * own + (1 - self.beta) * below


class LayerMaps(nn.Module):
    """A linear map for each layer, from the space to its tokens; all begin the same."""

    def __init__(self, settings: MMRL, layers: int, width: int) -> None:
        super().__init__()
        bound = settings.space_width**-0.5  # as of nn.Linear
        self.weight = nn.Parameter(_copies(layers, torch.empty(width, settings.space_width).uniform_(-bound, bound)))
        self.bias = nn.Parameter(_copies(layers, torch.empty(width).uniform_(-bound, bound)))

    def forward(self, space: Tensor) -> Tensor:
        """(K, d_r) -> (layers, K, d)."""
        return space @ self.weight.mT + self.bias.unsqueeze(1)


class ResidualMaps(nn.Module):
    """One linear map for all layers, and one of low rank that each adds to it (MMRL++)."""

    def __init__(self, settings: MMRL, layers: int, width: int) -> None:
        super().__init__()
        rank, space_width = settings.residual_rank or 0, settings.space_width
        bound = space_width**-0.5
        self.weight = nn.Parameter(torch.empty(width, space_width).uniform_(-bound, bound))
        self.a = nn.Parameter(_kaiming(layers, width, rank))
        self.b = nn.Parameter(torch.zeros(layers, rank, space_width))
        self.bias = nn.Parameter(_copies(layers, torch.empty(width).uniform_(-bound, bound)))

    def forward(self, space: Tensor) -> Tensor:
        """(K, d_r) -> (layers, K, d)."""
        return space @ self.weight.T + space @ self.b.mT @ self.a.mT + self.bias.unsqueeze(1)


class Projection(nn.Module):
    """Of representation features, learned from nothing."""

    def __init__(self, image: TowerShape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(image.width, image.shared_width) / math.sqrt(image.width))

    def forward(self, upper: UpperTower, features: Tensor) -> Tensor:
        """(B, d) -> (B, d_e)."""
        return features @ self.weight


class ResidualProjection(nn.Module):
    """CLIP's own, and one of low rank that is added to it (MMRL++)."""

    def __init__(self, settings: MMRL, image: TowerShape) -> None:
        super().__init__()
        rank = settings.projection_rank or 0
        self.a = nn.Parameter(_kaiming(image.width, rank))
        self.b = nn.Parameter(torch.zeros(rank, image.shared_width))

    def forward(self, upper: UpperTower, features: Tensor) -> Tensor:
        """(B, d) -> (B, d_e)."""
        projected: Tensor = upper.projection(features)
        return projected + features @ self.a @ self.b


def _copies(count: int, tensor: Tensor) -> Tensor:
    return tensor.expand(count, *tensor.shape).clone()


def _kaiming(*shape: int) -> Tensor:
    """Kaiming uniform with a = sqrt(5), which is uniform within 1 / sqrt(fan in) (arXiv 2505.10088)."""
    bound = shape[-1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound)


def _cut(values: Tensor, *sizes: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Parts of these sizes, and what is left; the gradient is put together at once, and not part by part."""
    return torch.split_with_sizes(values, [*sizes, values.shape[dim] - sum(sizes)], dim)


def _for_each(shared: Tensor, count: int) -> Tensor:
    """(1 or count, n, d) as (count, n, d)."""
    return shared.expand(count, -1, -1)
