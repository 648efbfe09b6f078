"""What people use who do not use this: fusion models of pooled embeddings to compare with."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robusttune.errors import RobustTuneError
from robusttune.models.base import Fused, FusionModel, FusionNetwork, layer_norm, log_prior
from robusttune.types import Encoded, Facts, Widths


@dataclass(frozen=True)
class PooledModel(FusionModel):
    """Settings of a model with a `head` on pooled embeddings.

    Args:
        width: of the hidden layer; 0 for none, a linear model.
        dropout: before the last layer, in [0, 1).
    """

    width: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width < 0 or not 0 <= self.dropout < 1:
            raise RobustTuneError(
                f"width {self.width}, dropout {self.dropout} do not work: give at least 0, and a share in [0, 1)"
            )


class ImageOnly(PooledModel):
    """Settings of a `OneSideNetwork` on the image."""

    def build(self, image: Widths, text: Widths, facts: Facts) -> OneSideNetwork:
        return OneSideNetwork(self, "image", image.pooled, facts)


class TextOnly(PooledModel):
    """Settings of a `OneSideNetwork` on the text."""

    def build(self, image: Widths, text: Widths, facts: Facts) -> OneSideNetwork:
        return OneSideNetwork(self, "text", text.pooled, facts)


class Concatenation(PooledModel):
    """Settings of a `ConcatenationNetwork`; with neither hidden layer nor dropout it is a linear probe."""

    def build(self, image: Widths, text: Widths, facts: Facts) -> ConcatenationNetwork:
        return ConcatenationNetwork(self, image, text, facts)


class LateFusion(PooledModel):
    """Settings of a `LateFusionNetwork`."""

    def build(self, image: Widths, text: Widths, facts: Facts) -> LateFusionNetwork:
        return LateFusionNetwork(self, image, text, facts)


class Baseline(FusionNetwork):
    """A network with nothing to correlate; where it is told nothing, it answers how frequent the classes were."""

    log_prior: Tensor
    view_shape = (0, 1)

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior(facts))

    @abstractmethod
    def answer(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, C), and for which rows (B,) they are told anything; arguments as for `forward`."""

    def forward(self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor) -> Fused:
        return self.fused(*self.answer(image, text, image_present, text_present))

    def fused(self, logits: Tensor, told: Tensor) -> Fused:
        """Of what `answer` returns."""
        nothing = logits.new_zeros(0, len(logits), 1)
        return Fused(torch.where(told.unsqueeze(1), logits, self.log_prior.to(logits.dtype)), nothing, nothing)


class OneSideNetwork(Baseline):
    """A head on one side's pooled embedding; the other side is not looked at."""

    def __init__(self, settings: PooledModel, side: Literal["image", "text"], width: int, facts: Facts) -> None:
        super().__init__(facts)
        self.side = side
        self.layers = head(width, settings.width, settings.dropout, facts)

    def answer(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        encoded, present = (image, image_present) if self.side == "image" else (text, text_present)
        return self.run(self.layers, pooled(encoded, present)), present


class ConcatenationNetwork(Baseline):
    """A head on both pooled embeddings side by side, zeros for an absent one."""

    def __init__(self, settings: PooledModel, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__(facts)
        self.layers = head(image.pooled + text.pooled, settings.width, settings.dropout, facts)

    def answer(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        both = torch.cat([pooled(image, image_present), pooled(text, text_present)], dim=1)
        return self.run(self.layers, both), image_present | text_present


class LateFusionNetwork(Baseline):
    """A head a side, and the mean of the logits of those sides that are present.

    Its softmax is the normalised geometric mean of both sides' answers (the product rule of Kittler et al. 1998).
    """

    def __init__(self, settings: PooledModel, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__(facts)
        self.image_layers = head(image.pooled, settings.width, settings.dropout, facts)
        self.text_layers = head(text.pooled, settings.width, settings.dropout, facts)

    def answer(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        sides = [
            self.run(self.image_layers, pooled(image, image_present)),
            self.run(self.text_layers, pooled(text, text_present)),
        ]
        present = torch.stack([image_present, text_present]).unsqueeze(2)
        total = torch.where(present, torch.stack(sides), 0.0).sum(0)
        return total / present.sum(0).clamp(min=1), image_present | text_present


def head(width_in: int, width: int, dropout: float, facts: Facts) -> nn.Sequential:
    """(B, width_in) -> (B, C): a hidden layer of ``width``, unless that is 0, dropout, and a linear layer."""
    hidden = [nn.Linear(width_in, width), nn.GELU()] if width else []
    return nn.Sequential(*hidden, nn.Dropout(dropout), nn.Linear(width or width_in, len(facts.class_names)))


def pooled(encoded: Encoded, present: Tensor) -> Tensor:
    """(B, d_p) the pooled embedding, normalised; zeros where the side is absent, whatever stands there."""
    return layer_norm(torch.where(present.unsqueeze(1), encoded.pooled, 0.0))
