"""What every fusion model is: settings that can be stored, and the network that they build."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

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
        view_shape: (M, c), how many pairs of views there are to correlate, and their width.
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
