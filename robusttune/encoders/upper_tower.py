"""The upper layers of a CLIP or SigLIP tower, which an adapter changes or inserts tokens into."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.encoders.blocks import Block
from robusttune.encoders.clip_parts import AttentionPool, Reads

POSITIONS = {"first": slice(0, 1), "last": slice(-1, None), "all": slice(None)}  # that a feature is read from


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

    Args:
        blocks: Layers, beginning with the first one that takes inserted tokens.
        norm: Layer norm after the last layer.
        projection: Map into the embedding space that both towers share: a linear one, weight of shape (d_e, d), or the
            attention pooling of SigLIP's vision tower.
        reads: Positions whose last states the feature is computed from: the ``first`` (CLIP's class token), the ``end``
            of each text (CLIP, whose text tower is causal), the ``last`` (SigLIP's texts, whose length is fixed) or
            ``all`` (SigLIP's patches).
    """

    def __init__(
        self, blocks: list[Block], norm: nn.Module, projection: nn.Linear | AttentionPool, reads: Reads = "first"
    ) -> None:
        super().__init__()
        self.blocks: Any = nn.ModuleList(blocks)
        self.norm: Any = norm
        self.projection: Any = projection
        self.reads = reads

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
        return self.blocks[-1].read_some(states, token.unsqueeze(1), mask).squeeze(1) if len(self.blocks) else token

    @property
    def causal(self) -> bool:
        """Return True if each token attends only to itself and the tokens before it."""
        return self.reads == "end"

    def read(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the states that the feature is computed from, shape (B, r, d).

        Args:
            states: States of all tokens but the inserted ones, shape (B, n, d).
            mask: Mask of real tokens, shape (B, n), bool; needed for the ``end`` of texts alone.
        """
        if self.reads == "end":
            assert mask is not None
            return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1].unsqueeze(1)
        return states[:, POSITIONS[self.reads]]

    def project(self, states: Tensor) -> Tensor:
        """Map normalised states into the shared embedding space, each by itself, from shape (B, d) to (B, d_e)."""
        projected: Tensor = self.projection(states.unsqueeze(1)).squeeze(1)
        return projected

    def read_out(self, states: Tensor) -> Tensor:
        """Return features of length 1, shape (B, d_e), from the last states at the positions of `read`, (B, r, d)."""
        return unit(self.projection(self.norm(states)).squeeze(1))


def unit(features: Tensor) -> Tensor:
    """Scale features to length 1, in float32 at least.

    Logits are cosine similarities times 100 or more, which would amplify rounding errors of a lower precision.
    """
    return functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
