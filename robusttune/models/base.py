"""Base classes of fusion models: the settings, the network that they build, and functions that networks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from robusttune.encoders import FrozenEncoder
from robusttune.models.runner import Runner
from robusttune.types import Encoded, Facts, Widths


class Fused(NamedTuple):
    """The output of a fusion network.

    Attributes:
        logits: Class scores, shape (B, C).
        image_views: Projections of the image latents for the correlation loss, shape (M, B, c).
        text_views: Projections of the text latents for the correlation loss, shape (M, B, c).
    """

    logits: Tensor
    image_views: Tensor
    text_views: Tensor


class FusionNetwork(nn.Module, ABC):
    """A network that fuses the outputs of two frozen encoders.

    Every parameter is trained and takes part in every forward pass, whichever modalities are missing. Otherwise
    distributed data-parallel training would stop.

    Attributes:
        view_shape: Number ``M`` of pairs of views to correlate, which may be 0, and their width ``c``.
        fitted_at_once: True for a `FittedNetwork`, which no gradient step trains.
        reads_pooled: False if the network reads no pooled embedding, so that an encoder need not compute it.
        run: Runner of the network's parts.
    """

    fitted_at_once = False
    reads_pooled = True
    view_shape: tuple[int, int]
    run = Runner()

    @abstractmethod
    def forward(self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor) -> Fused:
        """Compute the logits of a batch.

        Args:
            image: Output of the image encoder, with arbitrary values in rows without an image.
            text: Output of the text encoder, with arbitrary values in rows without a text.
            image_present: Mask of the rows with an image, shape (B,), bool.
            text_present: Mask of the rows with a text, shape (B,), bool.
        """

    @property
    def gives_cosines(self) -> bool:
        """Return whether the logits are cosines, in [-1, 1], which only a training loss scales."""
        return False

    @property
    @abstractmethod
    def output_layers(self) -> list[nn.Module]:
        """Return the last layers, which compute class scores. Each runs once in a forward pass, on (B, d)."""

    def forward_pairs(
        self,
        image: Encoded,
        text: Encoded,
        image_rows: Tensor,
        text_rows: Tensor,
        image_present: Tensor,
        text_present: Tensor,
    ) -> Fused:
        """Compute the logits of ``R`` pairs that are formed from the same images and texts.

        Networks override this method to encode each image and each text only once.

        Args:
            image: Output of the image encoder.
            text: Output of the text encoder. Its number of rows may differ from that of ``image``.
            image_rows: Row of ``image`` in each pair, shape (R,), int64.
            text_rows: Row of ``text`` in each pair, shape (R,), int64.
            image_present: Mask of the pairs with an image, shape (R,), bool. Where it is False, the image is ignored.
            text_present: Mask of the pairs with a text, shape (R,), bool. Where it is False, the text is ignored.

        Returns:
            Output with ``R`` rows.
        """
        parts = []
        pairs, block = torch.arange(len(image_rows), device=image_rows.device), max(len(image), len(text))
        # A single block is not split, because an exported graph cannot loop over blocks.
        for rows in [pairs] if len(pairs) <= block else torch.split(pairs, block):
            images = image.map(lambda tensor, rows=image_rows[rows]: tensor[rows])  # type: ignore[misc]
            texts = text.map(lambda tensor, rows=text_rows[rows]: tensor[rows])  # type: ignore[misc]
            parts.append(self(images, texts, image_present[rows], text_present[rows]))
        logits, image_views, text_views = zip(*parts, strict=True)
        return Fused(torch.cat(logits), torch.cat(image_views, 1), torch.cat(text_views, 1))

    def training_logits(self, logits: Tensor, label: Tensor, image_present: Tensor, text_present: Tensor) -> Tensor:
        """Return the logits that the training loss is computed from; by default the logits themselves.

        Args:
            logits: Logits of a forward pass, shape (B, C).
            label: Class indices, shape (B,), or 0/1 per class, shape (B, C).
            image_present: Mask of the rows with an image, shape (B,), bool.
            text_present: Mask of the rows with a text, shape (B,), bool.
        """
        del label, image_present, text_present
        return logits

    def extra_losses(self) -> dict[str, Tensor]:
        """Return losses of the weights themselves, by name, each of shape (); they are added to the training loss."""
        return {}

    # nn.Module annotates the result of a call as Any; this override gives it a type.
    def __call__(self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor) -> Fused:
        fused: Fused = super().__call__(image, text, image_present, text_present)
        return fused


class FusionModel(ABC):
    """Settings of a fusion network."""

    def build_on(self, image: FrozenEncoder, text: FrozenEncoder, facts: Facts) -> FusionNetwork:
        """Build the network on two encoders; by default from the widths of their outputs alone.

        Args:
            image: Image encoder.
            text: Text encoder.
            facts: Class names and class frequencies of the training data.
        """
        return self.build(image.widths, text.widths, facts)

    @abstractmethod
    def build(self, image: Widths, text: Widths, facts: Facts) -> FusionNetwork:
        """Build the network.

        Args:
            image: Widths of the image encoder's outputs.
            text: Widths of the text encoder's outputs.
            facts: Class names and class frequencies of the training data.
        """


def zero_absent(encoded: Encoded, present: Tensor) -> Encoded:
    """Replace the encoder's output by zeros in rows where the modality is absent.

    A mask alone would let Inf and NaN through. With zeros, arbitrary values in place of an absent modality leave the
    prediction bit-identical.

    Args:
        encoded: Output of an encoder.
        present: Mask of the rows with this modality, shape (B,), bool.
    """
    # Only a CPU can look at the mask without waiting, and an exported graph must work for all masks.
    if present.device.type == "cpu" and not torch.compiler.is_compiling() and bool(present.all()):
        return encoded
    rows = present.view(-1, 1)
    return Encoded(
        torch.where(rows, encoded.pooled, 0.0),
        [torch.where(rows.unsqueeze(2), tokens, 0.0) for tokens in encoded.tokens],
        [mask & rows for mask in encoded.mask],
    )


def layer_norm(tokens: Tensor) -> Tensor:
    """Normalise the last dimension without learned parameters.

    The activation scales of an encoder's layers differ by a factor of ten.
    """
    return functional.layer_norm(tokens, tokens.shape[-1:])


def log_prior(facts: Facts) -> Tensor:
    """Return the logits of the training class frequencies, shape (C,): the prediction if both modalities are missing.

    Their softmax (in multi-label data their sigmoid) equals the frequencies.

    Example:
        >>> from robusttune.types import Facts
        >>> log_prior(Facts(["cat", "dog"], [0.25, 0.75], multilabel=False)).exp()
        tensor([0.2500, 0.7500])
    """
    frequencies = torch.tensor(facts.class_frequencies, dtype=torch.float32).clamp(1e-6, 1 - 1e-6)
    return torch.logit(frequencies) if facts.multilabel else frequencies.log()
