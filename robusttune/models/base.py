"""What every fusion model is: settings that can be stored, the network that they build, and what networks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.models.runner import Runner
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
        run: runs its parts.
    """

    view_shape: tuple[int, int]
    run = Runner()

    @abstractmethod
    def forward(self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor) -> Fused:
        """Args:
        image: the image encoder's output, anything at all in rows without an image.
        text: the text encoder's output, likewise.
        image_present: (B,) bool.
        text_present: (B,) bool.
        """

    def seen(
        self,
        image: Encoded,
        text: Encoded,
        image_rows: Tensor,
        text_rows: Tensor,
        image_present: Tensor,
        text_present: Tensor,
    ) -> Fused:
        """Of ``R`` rows that see the same images and texts in several pairs.

        Args:
            image: the image encoder's output.
            text: the text encoder's output, of as many rows or of others.
            image_rows: (R,) the row of ``image`` that each sees.
            text_rows: (R,) the row of ``text``, likewise.
            image_present: (R,) bool; where not, the row is not looked at.
            text_present: (R,) bool.
        """
        parts = []
        every = torch.arange(len(image_rows), device=image_rows.device)
        for rows in torch.split(every, max(len(image), len(text))):
            images = image.map(lambda tensor, rows=image_rows[rows]: tensor[rows])  # type: ignore[misc]
            texts = text.map(lambda tensor, rows=text_rows[rows]: tensor[rows])  # type: ignore[misc]
            parts.append(self(images, texts, image_present[rows], text_present[rows]))
        logits, image_views, text_views = zip(*parts, strict=True)
        return Fused(torch.cat(logits), torch.cat(image_views, 1), torch.cat(text_views, 1))

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
