"""Fusion models that compute the features of each image and each text once, for all pairs that they occur in."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from robusttune.models.base import Fused, zero_absent
from robusttune.models.baselines import Baseline
from robusttune.types import Encoded


class PairNetwork(Baseline):
    """A baseline whose logits are those of `pair_logits`."""

    @abstractmethod
    def pair_logits(
        self, image: Encoded, text: Encoded, rows: tuple[Tensor, Tensor], present: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits of pairs.

        Args:
            image: Output of the image encoder.
            text: Output of the text encoder.
            rows: Rows of the image and of the text in each pair, shape (R,) each.
            present: Masks of the pairs with an image and with a text, shape (R,) each, bool.

        Returns:
            Logits, shape (R, C), and a mask of the pairs with at least one input, shape (R,).
        """

    def masked_logits(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits of pairs of the same row, see `Baseline.masked_logits`."""
        rows = torch.arange(len(image_present), device=image_present.device)
        image, text = zero_absent(image, image_present), zero_absent(text, text_present)
        return self.pair_logits(image, text, (rows, rows), (image_present, text_present))

    def forward_pairs(
        self,
        image: Encoded,
        text: Encoded,
        image_rows: Tensor,
        text_rows: Tensor,
        image_present: Tensor,
        text_present: Tensor,
    ) -> Fused:
        """Compute the logits of ``R`` pairs, see `FusionNetwork.forward_pairs`."""
        return self.fused(*self.pair_logits(image, text, (image_rows, text_rows), (image_present, text_present)))
