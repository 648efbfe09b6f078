"""Baseline fusion models on pooled embeddings."""

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
        width: Width of the hidden layer; 0 for a linear model without a hidden layer.
        dropout: Dropout probability before the last layer, in [0, 1).

    Raises:
        RobustTuneError: A value is out of its range.
    """

    width: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width < 0 or not 0 <= self.dropout < 1:
            raise RobustTuneError(
                f"width {self.width}, dropout {self.dropout} do not work: give at least 0, and a share in [0, 1)"
            )


class ImageOnly(PooledModel):
    """Settings of a `SingleModalityNetwork` on the image.

    Example:
        >>> from robusttune.types import Facts, Widths
        >>> facts = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False)
        >>> ImageOnly(width=0).build(Widths((8,), 16), Widths((8,), 4), facts).layers[-1]
        Linear(in_features=16, out_features=2, bias=True)
    """

    def build(self, image: Widths, text: Widths, facts: Facts) -> SingleModalityNetwork:
        """Build a network on the image encoder's pooled embedding."""
        return SingleModalityNetwork(self, "image", image.pooled, facts)


class TextOnly(PooledModel):
    """Settings of a `SingleModalityNetwork` on the text.

    Example:
        >>> from robusttune.types import Facts, Widths
        >>> facts = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False)
        >>> TextOnly(width=0).build(Widths((8,), 16), Widths((8,), 4), facts).layers[-1]
        Linear(in_features=4, out_features=2, bias=True)
    """

    def build(self, image: Widths, text: Widths, facts: Facts) -> SingleModalityNetwork:
        """Build a network on the text encoder's pooled embedding."""
        return SingleModalityNetwork(self, "text", text.pooled, facts)


class Concatenation(PooledModel):
    """Settings of a `ConcatenationNetwork`. With ``width`` 0 and ``dropout`` 0 it is a linear probe.

    Example:
        >>> from robusttune.types import Facts, Widths
        >>> facts = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False)
        >>> Concatenation(width=0).build(Widths((8,), 16), Widths((8,), 4), facts).layers[-1]
        Linear(in_features=20, out_features=2, bias=True)
    """

    def build(self, image: Widths, text: Widths, facts: Facts) -> ConcatenationNetwork:
        """Build a network on both pooled embeddings."""
        return ConcatenationNetwork(self, image, text, facts)


class LateFusion(PooledModel):
    """Settings of a `LateFusionNetwork`.

    Example:
        >>> from robusttune.types import Facts, Widths
        >>> facts = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False)
        >>> network = LateFusion(width=0).build(Widths((8,), 16), Widths((8,), 4), facts)
        >>> network.image_layers[-1], network.text_layers[-1]
        (Linear(in_features=16, out_features=2, bias=True), Linear(in_features=4, out_features=2, bias=True))
    """

    def build(self, image: Widths, text: Widths, facts: Facts) -> LateFusionNetwork:
        """Build a network with one head per modality."""
        return LateFusionNetwork(self, image, text, facts)


class Baseline(FusionNetwork):
    """A network without a correlation loss. Rows without any input get the log of the training class frequencies.

    Attributes:
        log_prior: Logits of the training class frequencies, shape (C,).
    """

    log_prior: Tensor
    view_shape = (0, 1)

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior(facts))

    @abstractmethod
    def masked_logits(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits without regard to rows that have no input.

        Args:
            image: Output of the image encoder, with arbitrary values in rows without an image.
            text: Output of the text encoder, with arbitrary values in rows without a text.
            image_present: Mask of the rows with an image, shape (B,), bool.
            text_present: Mask of the rows with a text, shape (B,), bool.

        Returns:
            Logits, shape (B, C), and a mask of the rows with at least one input that the network reads, shape (B,).
        """

    def forward(self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor) -> Fused:
        """Compute the logits of a batch, see `FusionNetwork.forward`."""
        return self.fused(*self.masked_logits(image, text, image_present, text_present))

    def fused(self, logits: Tensor, has_input: Tensor) -> Fused:
        """Replace the logits of rows without any input by the log of the class frequencies.

        The arguments are the two results of `masked_logits`: logits (B, C), and a mask (B,) of the rows with an input.
        """
        no_views = logits.new_zeros(0, len(logits), 1)
        return Fused(torch.where(has_input.unsqueeze(1), logits, self.log_prior.to(logits.dtype)), no_views, no_views)


class SingleModalityNetwork(Baseline):
    """A `head` on the pooled embedding of one modality. The other modality is ignored."""

    def __init__(self, settings: PooledModel, modality: Literal["image", "text"], width: int, facts: Facts) -> None:
        super().__init__(facts)
        self.modality = modality
        self.layers = head(width, settings.width, settings.dropout, facts)

    @property
    def output_layers(self) -> list[nn.Module]:
        """Return the last layers, see `FusionNetwork.output_layers`."""
        return [self.layers[-1]]

    def masked_logits(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits from one modality's pooled embedding, see `Baseline.masked_logits`."""
        encoded, present = (image, image_present) if self.modality == "image" else (text, text_present)
        return self.run(self.layers, pooled(encoded, present)), present


class ConcatenationNetwork(Baseline):
    """A `head` on the concatenated pooled embeddings, with zeros in place of an absent one."""

    def __init__(self, settings: PooledModel, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__(facts)
        self.layers = head(image.pooled + text.pooled, settings.width, settings.dropout, facts)

    @property
    def output_layers(self) -> list[nn.Module]:
        """Return the last layers, see `FusionNetwork.output_layers`."""
        return [self.layers[-1]]

    def masked_logits(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits from both pooled embeddings, see `Baseline.masked_logits`."""
        both = torch.cat([pooled(image, image_present), pooled(text, text_present)], dim=1)
        return self.run(self.layers, both), image_present | text_present


class LateFusionNetwork(Baseline):
    """A `head` per modality. The logits are the mean over the modalities that are present.

    The softmax of the mean is the normalised geometric mean of the two predictions (the product rule of Kittler et al.
    1998).
    """

    def __init__(self, settings: PooledModel, image: Widths, text: Widths, facts: Facts) -> None:
        super().__init__(facts)
        self.image_layers = head(image.pooled, settings.width, settings.dropout, facts)
        self.text_layers = head(text.pooled, settings.width, settings.dropout, facts)

    @property
    def output_layers(self) -> list[nn.Module]:
        """Return the last layers, see `FusionNetwork.output_layers`."""
        return [self.image_layers[-1], self.text_layers[-1]]

    def masked_logits(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the mean logits of the modalities that are present, see `Baseline.masked_logits`."""
        logits = [
            self.run(self.image_layers, pooled(image, image_present)),
            self.run(self.text_layers, pooled(text, text_present)),
        ]
        present = torch.stack([image_present, text_present]).unsqueeze(2)
        total = torch.where(present, torch.stack(logits), 0.0).sum(0)
        return total / present.sum(0).clamp(min=1), image_present | text_present


def head(width_in: int, width: int, dropout: float, facts: Facts) -> nn.Sequential:
    """Build a classifier: a hidden layer with GELU (unless ``width`` is 0), dropout, and a linear layer.

    Args:
        width_in: Width of the input, shape (B, width_in).
        width: Width of the hidden layer; 0 for none.
        dropout: Dropout probability before the last layer, in [0, 1).
        facts: Facts of the training data, which determine the number ``C`` of outputs.
    """
    hidden = [nn.Linear(width_in, width), nn.GELU()] if width else []
    return nn.Sequential(*hidden, nn.Dropout(dropout), nn.Linear(width or width_in, len(facts.class_names)))


def pooled(encoded: Encoded, present: Tensor) -> Tensor:
    """Return the layer-normalised pooled embedding, shape (B, d_p), with zeros in rows where the modality is absent.

    Args:
        encoded: Output of an encoder, with arbitrary values in absent rows.
        present: Mask of the rows with this modality, shape (B,), bool.
    """
    return layer_norm(torch.where(present.unsqueeze(1), encoded.pooled, 0.0))
