"""Standardised features of one modality, and a regression on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robusttune.models.attention import masked_mean
from robusttune.types import Encoded, Facts, Widths

LEAST_DEVIATION = 1e-4  # fraction of the mean standard deviation below which a feature counts as constant


class Standardised(nn.Module):
    """The standardised features of one modality, and the regression on them alone.

    Args:
        layers: True to read the mean token of each layer besides the pooled embedding, False for the latter alone, None
            to choose.
        widths: Widths of the encoder's outputs.
        facts: Class names and frequencies of the training data.

    Attributes:
        centre: Mean of each feature over the training samples, shape (d,).
        deviation: Standard deviation of each feature, shape (d,); 1 for a feature that is constant.
        alone: Regression on this modality alone.
    """

    centre: Tensor
    deviation: Tensor

    def __init__(self, layers: bool | None, widths: Widths, facts: Facts) -> None:
        super().__init__()
        self.layers = layers
        self.pooled = widths.pooled
        self.width = widths.pooled + (0 if layers is False else sum(widths.layers))
        self.alone = regression(self.width, facts)
        self.register_buffer("centre", torch.zeros(self.width))
        self.register_buffer("deviation", torch.ones(self.width))

    @property
    def output_width(self) -> int:
        """Number of features that `forward` returns."""
        return self.width

    @property
    def column_sets(self) -> list[Tensor]:
        """Return the sets of features to choose from, as masks of shape (d,), bool, on the CPU."""
        everything = torch.ones(self.width, dtype=torch.bool)
        pooled = torch.arange(self.width) < self.pooled
        return [everything] if self.layers is not None else [pooled, everything]

    def features(self, encoded: Encoded) -> Tensor:
        """Return the features of a batch before they are standardised, shape (B, d)."""
        parts = [encoded.pooled]
        if self.layers is not False:
            parts += [masked_mean(tokens, mask) for tokens, mask in zip(encoded.tokens, encoded.mask, strict=True)]
        return torch.cat(parts, 1)

    def fit_statistics(self, features: Tensor) -> None:
        """Set the mean and the deviation of each feature to those of some rows, shape (N, d); none changes nothing."""
        if len(features) == 0:
            return
        deviation = features.double().std(0, correction=0)
        constant = deviation <= LEAST_DEVIATION * deviation.mean()
        self.centre.copy_(features.double().mean(0))
        self.deviation.copy_(torch.where(constant, 1.0, deviation))

    def standardise(self, features: Tensor) -> Tensor:
        """Standardise features in float64, as `forward` does in the precision of the model."""
        centre, deviation = (each.to(features.device, torch.float64) for each in (self.centre, self.deviation))
        return (features.double() - centre) / deviation

    def forward(self, features: Tensor) -> Tensor:
        """Standardise features, shape (B, d)."""
        return (features - self.centre) / self.deviation


def regression(width: int, facts: Facts) -> nn.Linear:
    """Build a linear layer whose weights are 0 and are no subject of gradient steps."""
    layer = nn.Linear(width, len(facts.class_names)).requires_grad_(False)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
