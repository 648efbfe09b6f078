"""What people use who do not use this: fusion models to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robusttune.errors import RobustTuneError
from robusttune.models.base import Fused, FusionModel, FusionNetwork, keep, layer_norm, log_prior
from robusttune.types import Encoded, Facts, Widths


@dataclass(frozen=True)
class Concatenation(FusionModel):
    """Settings of `ConcatenationNetwork`.

    Args:
        width: of the hidden layer.
        dropout: in the hidden layer, in [0, 1).
    """

    width: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width < 1 or not 0 <= self.dropout < 1:
            raise RobustTuneError(
                f"width {self.width}, dropout {self.dropout} do not work: give at least 1, and a share in [0, 1)"
            )

    def build(self, image: Widths, text: Widths, facts: Facts) -> ConcatenationNetwork:
        return ConcatenationNetwork(self, image, text, facts)


class ConcatenationNetwork(FusionNetwork):
    """Both pooled embeddings side by side, zeros for an absent one, and a layer on them; there is nothing to correlate.

    With nothing present the answer is the class frequencies in training.
    """

    log_prior: Tensor
    view_shape = (0, 1)

    def __init__(self, settings: Concatenation, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(image.pooled + text.pooled, settings.width),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.width, len(facts.class_names)),
        )
        self.register_buffer("log_prior", log_prior(facts))

    def forward(self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor) -> Fused:
        sides = [layer_norm(keep(*side).pooled) for side in ((image, image_present), (text, text_present))]
        logits = self.layers(torch.cat(sides, dim=1))
        something = (image_present | text_present).unsqueeze(1)
        nothing = logits.new_zeros(0, len(logits), 1)
        return Fused(torch.where(something, logits, self.log_prior.to(logits.dtype)), nothing, nothing)
