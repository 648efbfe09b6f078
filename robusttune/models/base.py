"""What every fusion model is: settings that can be stored, the network that they build, and what networks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.types import Encoded, Facts, Widths


class Fused(NamedTuple):
    """What a fusion network makes of a batch.

    Attributes:
        logits: (B, C).
        image_views: (M, B, c), projections of the image latents to be correlated.
        text_views: (M, B, c), likewise for the text.
    """

    logits: Tensor
    image_views: Tensor
    text_views: Tensor


class FusionNetwork(nn.Module, ABC):
    """Fuses what the frozen encoders return; every parameter is trained and is in every graph.

    Attributes:
        view_shape: (M, c), how many pairs of views there are to correlate, and their width; ``M`` may be 0.
    """

    view_shape: tuple[int, int]

    @abstractmethod
    def forward(self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor) -> Fused:
        """Args:
        image: the image encoder's output, anything at all in rows without an image.
        text: the text encoder's output, likewise.
        image_present: (B,) bool.
        text_present: (B,) bool.
        """

    # nn.Module types calls as Any.
    def __call__(self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor) -> Fused:
        fused: Fused = super().__call__(image, text, image_present, text_present)
        return fused


class FusionModel(ABC):
    """Settings of a fusion network."""

    @abstractmethod
    def build(self, image: Widths, text: Widths, facts: Facts) -> FusionNetwork:
        """The network for encoders of these widths and data of these facts."""


def keep(encoded: Encoded, present: Tensor) -> Encoded:
    """The encoder's output with zeros where the side is absent: a mask alone would let Inf and NaN through."""
    rows = present.view(-1, 1)
    return Encoded(
        torch.where(rows, encoded.pooled, 0.0),
        [torch.where(rows.unsqueeze(2), tokens, 0.0) for tokens in encoded.tokens],
        [mask & rows for mask in encoded.mask],
    )


def layer_norm(tokens: Tensor) -> Tensor:
    """Without parameters: the scales of encoder layers differ by a factor of ten."""
    return functional.layer_norm(tokens, tokens.shape[-1:])


def log_prior(facts: Facts) -> Tensor:
    """(C,) logits of the training class frequencies: the answer when nothing is present.

    Softmax of it (sigmoid in multi-label data) gives the frequencies back.
    """
    share = torch.tensor(facts.class_frequencies, dtype=torch.float32).clamp(1e-6, 1 - 1e-6)
    return torch.logit(share) if facts.multilabel else share.log()
