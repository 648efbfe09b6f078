"""An expert for each side and one for the pair, on all that the encoders say of a sample; their logits are added."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.errors import RobustTuneError
from robusttune.models.attention import masked_mean
from robusttune.models.base import Fused, FusionModel, keep, layer_norm
from robusttune.models.baselines import Baseline
from robusttune.ranks import sum_over_ranks
from robusttune.types import Encoded, Facts, Widths


@dataclass(frozen=True)
class Experts(FusionModel):
    """Settings of an `ExpertsNetwork`.

    Args:
        width: of the hidden layer of each side.
        layers: whether experts look at the mean of each chosen layer, too, and not only at what the encoder pools.
            They help where that was made for something else (object classes, similar sentences), and are in the way of
            few samples where it was made for images and texts, as CLIP's was.
        input_dropout: share of the encoder's features that an expert is not told in a step, in [0, 1). They say
            the same many times over, and few samples are learned by heart more easily with all of them.
        dropout: of the hidden layer, in [0, 1).
    """

    width: int = 256
    layers: bool = True
    input_dropout: float = 0.7
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.width < 1 or not (0 <= self.input_dropout < 1 and 0 <= self.dropout < 1):
            raise RobustTuneError(
                f"width {self.width}, input_dropout {self.input_dropout}, dropout {self.dropout} do not work: "
                "give at least 1, and shares in [0, 1)"
            )

    def build(self, image: Widths, text: Widths, facts: Facts) -> ExpertsNetwork:
        return ExpertsNetwork(self, image, text, facts)


class ExpertsNetwork(Baseline):
    """Logits of the image's expert, the text's and the pair's, added up over those that have all they look at.

    That is a product of experts (Hinton 2002), in which an absent side takes its factors with it, and nothing stands in
    for it.
    """

    def __init__(self, settings: Experts, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__(facts)
        self.image = Expert(settings, image, facts)
        self.text = Expert(settings, text, facts)
        self.pair = readout(settings, facts)

    def answer(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        own = torch.arange(len(image_present), device=image_present.device)
        image, text = keep(image, image_present), keep(text, text_present)
        return self._added(image, text, (own, own), (image_present, text_present))

    def seen(
        self,
        image: Encoded,
        text: Encoded,
        image_rows: Tensor,
        text_rows: Tensor,
        image_present: Tensor,
        text_present: Tensor,
    ) -> Fused:
        """Each side's expert is asked once, in however many pairs its side is seen."""
        return self.fused(*self._added(image, text, (image_rows, text_rows), (image_present, text_present)))

    def _added(
        self, image: Encoded, text: Encoded, rows: tuple[Tensor, Tensor], present: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Logits (R, C), and for which rows (R,) they are told anything; pairs are of image and text, as for `seen`."""
        (image_rows, text_rows), (image_present, text_present) = rows, present
        images, image_logits = self.run(self.image, self.image.told(image))
        texts, text_logits = self.run(self.text, self.text.told(text))
        pair_logits = self.run(self.pair, images[image_rows] + texts[text_rows])
        parts = (
            (image_present, image_logits[image_rows]),
            (text_present, text_logits[text_rows]),
            (image_present & text_present, pair_logits),
        )
        total = torch.stack([torch.where(shown.unsqueeze(1), logits, 0.0) for shown, logits in parts]).sum(0)
        return total, image_present | text_present


class Expert(nn.Module):
    """On one side's pooled embedding, and the means of each chosen layer's tokens."""

    centre: Tensor
    rows: Tensor

    def __init__(self, settings: Experts, widths: Widths, facts: Facts) -> None:
        super().__init__()
        width_in = widths.pooled + (sum(widths.layers) if settings.layers else 0)
        self.layers = settings.layers
        self.input_dropout = settings.input_dropout
        self.hidden = nn.Linear(width_in, settings.width)
        self.read = readout(settings, facts)
        self.register_buffer("centre", torch.zeros(width_in))
        self.register_buffer("rows", torch.zeros((), dtype=torch.float64))  # that the centre is the mean of

    def told(self, encoded: Encoded) -> Tensor:
        """(B, d) what the expert looks at: every part normalised, and the mean over training samples taken away.

        What all samples have in common would otherwise come and go with the dropout of features. Rows without a real
        token are not of the mean, which takes in every batch of training.
        """
        parts = [encoded.pooled]
        if self.layers:
            parts += [masked_mean(tokens, mask) for tokens, mask in zip(encoded.tokens, encoded.mask, strict=True)]
        features = torch.cat([layer_norm(part) for part in parts], dim=1)
        if self.training:
            self._take_in(features.detach(), encoded.mask[-1].any(1))
        return features - self.centre.to(features.dtype)

    @torch.no_grad()
    def _take_in(self, features: Tensor, real: Tensor) -> None:
        """Make the centre the mean of these rows, too, on all ranks."""
        total = sum_over_ranks(torch.where(real.unsqueeze(1), features, 0.0).sum(0).to(self.centre.dtype))
        fresh = sum_over_ranks(real.sum().to(self.rows.dtype))
        self.rows += fresh
        share = (fresh / self.rows.clamp(min=1)).to(self.centre.dtype)
        self.centre += share * (total / fresh.clamp(min=1).to(self.centre.dtype) - self.centre)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, d) -> (B, width), before the activation, and logits (B, C)."""
        hidden = self.hidden(functional.dropout(features, self.input_dropout, self.training))
        return hidden, self.read(hidden)


def readout(settings: Experts, facts: Facts) -> nn.Sequential:
    """(B, width) -> (B, C)."""
    return nn.Sequential(nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(settings.width, len(facts.class_names)))
