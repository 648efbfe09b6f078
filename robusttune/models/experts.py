"""Product of experts: the logits of an image expert, a text expert and a pair expert are added."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.errors import RobustTuneError
from robusttune.models.attention import masked_mean
from robusttune.models.base import FusionModel, layer_norm
from robusttune.models.pair_network import PairNetwork
from robusttune.ranks import sum_over_ranks
from robusttune.types import Encoded, Facts, Widths


@dataclass(frozen=True)
class Experts(FusionModel):
    """Settings of an `ExpertsNetwork`.

    Args:
        width: Width of the hidden layer of each modality.
        layers: True if the experts read the mean token of each chosen layer besides the pooled embedding. These tokens
            help if the encoder was trained for another purpose (object classes, sentence similarity). They harm with
            few samples if the encoder was trained on images and texts, such as CLIP.
        input_dropout: Dropout probability of the encoder's features, in [0, 1). The features are redundant, and with
            all of them a model memorises a small training set more easily.
        dropout: Dropout probability after the hidden layer, in [0, 1).

    Raises:
        RobustTuneError: A value is out of its range.

    Example:
        >>> from robusttune.types import Facts, Widths
        >>> facts = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False)
        >>> network = Experts(width=32).build(Widths((8, 8), 16), Widths((8, 8), 4), facts)
        >>> network.image.hidden.in_features, network.text.hidden.in_features
        (32, 20)
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
        """Build the network."""
        return ExpertsNetwork(self, image, text, facts)


class ExpertsNetwork(PairNetwork):
    """A product of experts (Hinton 2002) for the image, the text and the pair of both.

    The logits of all experts whose inputs are present are added. If a modality is absent, its own expert and the pair's
    expert contribute nothing, and no placeholder is needed.
    """

    def __init__(self, settings: Experts, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__(facts)
        self.image = Expert(settings, image, facts)
        self.text = Expert(settings, text, facts)
        self.pair = readout(settings, facts)

    @property
    def output_layers(self) -> list[nn.Module]:
        """Return the last layers, see `FusionNetwork.output_layers`."""
        return [self.image.read[-1], self.text.read[-1], self.pair[-1]]

    def pair_logits(
        self, image: Encoded, text: Encoded, rows: tuple[Tensor, Tensor], present: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Add the logits of the experts whose inputs are present; each expert runs once per image or text."""
        (image_rows, text_rows), (image_present, text_present) = rows, present
        images, image_logits = self.run(self.image, self.image.input_features(image))
        texts, text_logits = self.run(self.text, self.text.input_features(text))
        pair_logits = self.run(self.pair, images[image_rows] + texts[text_rows])
        parts = (
            (image_present, image_logits[image_rows]),
            (text_present, text_logits[text_rows]),
            (image_present & text_present, pair_logits),
        )
        total = torch.stack([torch.where(available.unsqueeze(1), logits, 0.0) for available, logits in parts]).sum(0)
        return total, image_present | text_present


class Expert(nn.Module):
    """An expert for one modality, on the pooled embedding and optionally the mean token of each chosen layer.

    Attributes:
        centre: Mean features of the training samples, shape (d,), which is subtracted.
        rows: Number of rows that ``centre`` is the mean of, shape (), float64.
    """

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
        self.register_buffer("rows", torch.zeros((), dtype=torch.float64))  # number of rows averaged

    def input_features(self, encoded: Encoded) -> Tensor:
        """Return the expert's input features, shape (B, d).

        Each part is layer-normalised, then the mean over the training samples is subtracted. Otherwise feature dropout
        would change the component that all samples share. In training, every batch updates the mean, except for rows
        without a real token.
        """
        parts = [encoded.pooled]
        if self.layers:
            parts += [masked_mean(tokens, mask) for tokens, mask in zip(encoded.tokens, encoded.mask, strict=True)]
        features = torch.cat([layer_norm(part) for part in parts], dim=1)
        if self.training:
            self._update_centre(features.detach(), encoded.mask[-1].any(1))
        return features - self.centre.to(features.dtype)

    @torch.no_grad()
    def _update_centre(self, features: Tensor, real: Tensor) -> None:
        """Update the centre with the rows of all ranks.

        Args:
            features: Features before centring, shape (B, d).
            real: Mask of the rows that count, shape (B,), bool.
        """
        total = sum_over_ranks(torch.where(real.unsqueeze(1), features, 0.0).sum(0).to(self.centre.dtype))
        count = sum_over_ranks(real.sum().to(self.rows.dtype))
        self.rows += count
        weight = (count / self.rows.clamp(min=1)).to(self.centre.dtype)
        self.centre += weight * (total / count.clamp(min=1).to(self.centre.dtype) - self.centre)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the hidden layer and the expert's logits.

        Args:
            features: Input features, centred, shape (B, d).

        Returns:
            Hidden layer before the activation, shape (B, width), and logits, shape (B, C).
        """
        hidden = self.hidden(functional.dropout(features, self.input_dropout, self.training))
        return hidden, self.read(hidden)


def readout(settings: Experts, facts: Facts) -> nn.Sequential:
    """Build a classifier on a hidden layer: GELU, dropout and a linear layer, from (B, width) to (B, C)."""
    return nn.Sequential(nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(settings.width, len(facts.class_names)))
