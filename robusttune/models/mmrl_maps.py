"""The learned maps of MMRL and MMRL++, to the tokens of each layer and into the space that both towers share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robusttune.encoders.upper_tower import TowerShape, UpperTower

if TYPE_CHECKING:
    from robusttune.models.mmrl import MMRL


class LayerMaps(nn.Module):
    """Independent linear maps from the representation space to each layer's tokens, initialised with equal values."""

    def __init__(self, settings: MMRL, layers: int, width: int) -> None:
        super().__init__()
        bound = settings.space_width**-0.5  # the default of nn.Linear
        self.weight = nn.Parameter(_copies(layers, torch.empty(width, settings.space_width).uniform_(-bound, bound)))
        self.bias = nn.Parameter(_copies(layers, torch.empty(width).uniform_(-bound, bound)))

    def forward(self, space: Tensor) -> Tensor:
        """Map the space, shape (K, d_r), to the tokens of each layer, shape (layers, K, d)."""
        return space @ self.weight.mT + self.bias.unsqueeze(1)


class ResidualMaps(nn.Module):
    """A linear map that all layers share, plus a low-rank map and a bias per layer (MMRL++)."""

    def __init__(self, settings: MMRL, layers: int, width: int) -> None:
        super().__init__()
        rank, space_width = settings.residual_rank or 0, settings.space_width
        bound = space_width**-0.5
        self.weight = nn.Parameter(torch.empty(width, space_width).uniform_(-bound, bound))
        self.a = nn.Parameter(_kaiming(layers, width, rank))
        self.b = nn.Parameter(torch.zeros(layers, rank, space_width))
        self.bias = nn.Parameter(_copies(layers, torch.empty(width).uniform_(-bound, bound)))

    def forward(self, space: Tensor) -> Tensor:
        """Map the space, shape (K, d_r), to the tokens of each layer, shape (layers, K, d)."""
        return space @ self.weight.T + space @ self.b.mT @ self.a.mT + self.bias.unsqueeze(1)


class Projection(nn.Module):
    """A learned projection of representation features, ``P_rep`` of MMRL, initialised from N(0, 1) / sqrt(d_v)."""

    def __init__(self, image: TowerShape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(image.width, image.shared_width) / math.sqrt(image.width))

    def forward(self, upper: UpperTower, features: Tensor) -> Tensor:
        """Project features of shape (B, d_v) to shape (B, d_e). The frozen tower is not used."""
        return features @ self.weight


class ResidualProjection(nn.Module):
    """CLIP's frozen projection plus a learned low-rank residual, ``P_rep = W_v + A B`` (MMRL++).

    SigLIP has no such projection. Its frozen pooling, applied to a feature as a single token, takes its place.
    """

    def __init__(self, settings: MMRL, image: TowerShape) -> None:
        super().__init__()
        rank = settings.projection_rank or 0
        self.a = nn.Parameter(_kaiming(image.width, rank))
        self.b = nn.Parameter(torch.zeros(rank, image.shared_width))

    def forward(self, upper: UpperTower, features: Tensor) -> Tensor:
        """Project features of shape (B, d_v) to shape (B, d_e)."""
        return upper.project(features) + features @ self.a @ self.b


def _copies(count: int, tensor: Tensor) -> Tensor:
    """Return ``count`` equal copies of a tensor along a new first dimension."""
    return tensor.expand(count, *tensor.shape).clone()


def _kaiming(*shape: int) -> Tensor:
    """Initialise a matrix Kaiming-uniformly with a = sqrt(5), that is within 1 / sqrt(fan in) (arXiv 2505.10088)."""
    bound = shape[-1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound)
