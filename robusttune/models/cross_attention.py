"""Baseline with token-level fusion: image tokens attend to text tokens, and text tokens to image tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robusttune.errors import RobustTuneError
from robusttune.models.attention import attend, masked_mean, split
from robusttune.models.base import FusionModel, layer_norm, zero_absent
from robusttune.models.baselines import Baseline, head
from robusttune.types import Encoded, Facts, Widths


@dataclass(frozen=True)
class CrossAttention(FusionModel):
    """Settings of a `CrossAttentionNetwork`.

    Args:
        width: Width of the tokens and of the head's hidden layer.
        heads: Number of attention heads; must divide ``width``.
        layers: Number of blocks per modality.
        dropout: Dropout probability in the blocks and the head, in [0, 1).

    Raises:
        RobustTuneError: A value is out of its range.

    Example:
        >>> from robusttune.types import Facts, Widths
        >>> facts = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False)
        >>> network = CrossAttention(width=32, layers=1).build(Widths((8,), 16), Widths((8,), 4), facts)
        >>> len(network.image_blocks), len(network.text_blocks)
        (1, 1)
    """

    width: int = 256
    heads: int = 4
    layers: int = 2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.layers) < 1 or not 0 <= self.dropout < 1:
            raise RobustTuneError(
                f"width {self.width}, heads {self.heads}, layers {self.layers}, dropout {self.dropout} do not work: "
                "give at least 1 of each, and a share in [0, 1)"
            )
        if self.width % self.heads:
            raise RobustTuneError(
                f"width {self.width} cannot be split into {self.heads} heads: give a multiple of heads"
            )

    def build(self, image: Widths, text: Widths, facts: Facts) -> CrossAttentionNetwork:
        """Build the network for the last of the chosen layers of both encoders."""
        return CrossAttentionNetwork(self, image, text, facts)


class CrossAttentionNetwork(Baseline):
    """Co-attention blocks (ViLBERT, Lu et al. 2019) on the tokens of the last chosen layer of each encoder.

    A head reads the mean token of each modality. An absent modality adds nothing to the tokens of the other one, and
    its own mean is zero.
    """

    def __init__(self, settings: CrossAttention, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__(facts)
        width = settings.width
        self.image_in = nn.Linear(image.layers[-1], width)
        self.text_in = nn.Linear(text.layers[-1], width)
        self.image_blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.text_blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.image_norm = nn.LayerNorm(width)
        self.text_norm = nn.LayerNorm(width)
        self.layers = head(2 * width, width, settings.dropout, facts)

    @property
    def output_layers(self) -> list[nn.Module]:
        """Return the last layers, see `FusionNetwork.output_layers`."""
        return [self.layers[-1]]

    def masked_logits(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits from the tokens of both modalities, see `Baseline.masked_logits`."""
        (images, image_mask), (texts, text_mask) = last_layer(image, image_present), last_layer(text, text_present)
        images, texts = self.image_in(layer_norm(images)), self.text_in(layer_norm(texts))
        for image_block, text_block in zip(self.image_blocks, self.text_blocks, strict=True):
            images, texts = (
                self.run(image_block, images, texts, text_mask),
                self.run(text_block, texts, images, image_mask),
            )
        means = masked_mean(self.image_norm(images), image_mask), masked_mean(self.text_norm(texts), text_mask)
        return self.run(self.layers, torch.cat(means, dim=1)), image_present | text_present


class Block(nn.Module):
    """A block of cross-attention and an MLP, each with a layer norm before it and a residual connection around it."""

    def __init__(self, settings: CrossAttention) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.norm = nn.LayerNorm(width)
        self.other_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width, bias=False)  # without a bias, an absent modality adds zero
        self.dropout = nn.Dropout(settings.dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(settings.dropout),
        )

    def forward(self, tokens: Tensor, other: Tensor, other_mask: Tensor) -> Tensor:
        """Update the tokens of one modality.

        Args:
            tokens: Tokens that are updated, shape (B, n, width).
            other: Tokens of the other modality, which are attended to, shape (B, m, width).
            other_mask: Mask of ``other``, shape (B, m), bool, True on real tokens.

        Returns:
            Updated tokens, shape (B, n, width).
        """
        (queries,) = split(self.query(self.norm(tokens)), 1, self.heads)
        keys, values = split(self.key_value(self.other_norm(other)), 2, self.heads)
        tokens = tokens + self.dropout(self.out(attend(queries, keys, values, other_mask)))
        added: Tensor = self.mlp(tokens)
        return tokens + added


def last_layer(encoded: Encoded, present: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens (B, n, d) and the mask (B, n) of the last chosen layer.

    Rows without this modality have zeros as tokens and False as mask.
    """
    kept = zero_absent(Encoded(encoded.pooled, encoded.tokens[-1:], encoded.mask[-1:]), present)
    return kept.tokens[0], kept.mask[0]
