"""A classifier that fuses the features of two frozen encoders, for example with MoLT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident

import torch
from torch import Tensor, nn

from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.encoders.presence import nan_if_absent
from robusttune.errors import RobustTuneError
from robusttune.models.balance import Balance
from robusttune.models.base import Fused, FusionModel, FusionNetwork
from robusttune.models.classifier import Classifier
from robusttune.models.molt import MoLT
from robusttune.models.runner import Runner
from robusttune.types import Batch, Encoded, Facts, ImageSets, View, variants_of

CLEAN = (["clean"], ["clean"])


class FusionClassifier(Classifier):
    """A fusion network on the features of two frozen encoders.

    Args:
        image_encoder: Settings of the image encoder.
        text_encoder: Settings of the text encoder.
        facts: Class names, class frequencies and kind of task, from the training data.
        fusion: Settings of the fusion network.
        compile: True to run the network through torch.compile; results are the same up to rounding.
        checkpoint_activations: True to recompute activations in the backward pass, which saves memory; results are the
            same.
        balance: Settings for imbalanced classes, whose ``post_hoc`` part adjusts predictions.

    Raises:
        RobustTuneError: The encoders do not suit the network, or predictions are to be adjusted that are cosines.

    Attributes:
        network: Fusion network, the part that is trained.

    Example:
        >>> from robusttune.encoders import CLIPTextEncoder, TimmEncoder
        >>> image = TimmEncoder(name="test_vit", weights="random", layers=1, grid=2)
        >>> text = CLIPTextEncoder(name="robusttune:demo_clip", weights="random", first_layer=2)
        >>> classifier = FusionClassifier(image, text, Facts(["cat", "dog"], [0.5, 0.5], multilabel=False))
        >>> classifier.class_names, classifier.temperatures.values.tolist()
        (['cat', 'dog'], [1.0, 1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        fusion: FusionModel = MoLT(),  # noqa: B008, the default is immutable
        compile: bool = False,
        checkpoint_activations: bool = False,
        balance: Balance = Balance(),  # noqa: B008
    ) -> None:
        super().__init__(image_encoder, text_encoder, facts, balance)
        self.fusion = fusion
        self.network = fusion.build_on(self.image_encoder, self.text_encoder, facts)
        self.network.run = Runner(compile, checkpoint_activations)
        if balance.post_hoc > 0 and self.network.gives_cosines:
            raise RobustTuneError(
                f"the logits of {type(fusion).__name__} with prototypes are cosines, which cannot be adjusted to class "
                "frequencies: use model.balance.logit_adjustment in place of post_hoc"
            )

    def encode(
        self, batch: Batch, variants: tuple[list[str], list[str]] = CLEAN, pooled: bool | None = None
    ) -> tuple[Encoded, Encoded]:
        """Encode variants of the images and of the texts of a batch.

        Args:
            batch: Batch of ``B`` samples.
            variants: Names of the ``V`` variants of the images, and of the ``U`` variants of the texts.
            pooled: False if pooled embeddings are not needed; None if the network decides.

        Returns:
            Features of the images, with V x B rows, and of the texts, with U x B rows, all rows of the first variant
            first. Rows without the modality hold arbitrary values.

        Raises:
            RobustTuneError: A sample has several images, and the network needs one.
        """
        images, texts = variants
        if self.network.adapts_images and isinstance(batch.images.inputs, ImageSets):
            raise RobustTuneError(
                f"{type(self.fusion).__name__} cannot average the features of several images: give one image for each "
                "sample"
            )
        pooled = self.network.reads_pooled if pooled is None else pooled
        return (
            self.image_encoder.encode(batch.images.pick(images), batch.image_present.repeat(len(images)), pooled),
            self.text_encoder.encode(batch.texts.pick(texts), batch.text_present.repeat(len(texts)), pooled),
        )

    def fuse(self, batch: Batch, views: Sequence[View], network: FusionNetwork | None = None) -> Fused:
        """Run the network on each of the ``W`` views of a batch. Each variant of an input is encoded once.

        Args:
            batch: Batch of ``B`` samples.
            views: Views of the samples.
            network: Network to run in place of the classifier's own.

        Returns:
            Output with W x B rows, all rows of the first view first.
        """
        images, texts = (names or ["clean"] for names in variants_of(views))
        encoded = self.encode(batch, (images, texts))
        rows = (
            _rows([view.image for view in views], images, batch),
            _rows([view.text for view in views], texts, batch),
        )
        present = [
            torch.cat(parts)
            for parts in zip(*(view.present(batch.image_present, batch.text_present) for view in views), strict=True)
        ]
        return (self.network if network is None else network).forward_pairs(*encoded, *rows, *present)

    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        """Compute logits (W, B, C) under each of the ``W`` views, see `Classifier.logits`."""
        return self.fuse(batch, views).logits.reshape(len(views), len(batch.image_present), -1)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Compute embeddings, see `Classifier.embed`.

        The embeddings of image and text together are the inputs of the network's output layers, one after the other.
        The embeddings of one modality are the pooled embeddings of its encoder.
        """
        image, text = self.encode(batch, pooled=True)
        with _inputs_of(self.network.output_layers) as inputs:
            self.network(image, text, batch.image_present, batch.text_present)
        return (
            torch.cat(inputs, 1),
            nan_if_absent(image.pooled, batch.image_present),
            nan_if_absent(text.pooled, batch.text_present),
        )


@contextmanager
def _inputs_of(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect the inputs of layers in this thread, in a list that is filled, in their order, when the block ends."""
    seen: dict[nn.Module, Tensor] = {}
    found: list[Tensor] = []
    thread = get_ident()

    def keep(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        if get_ident() == thread:  # Other threads may run the same layers.
            seen[layer] = given[0]

    handles = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
    found += [seen[layer] for layer in layers]


def _rows(requested: Sequence[str | None], names: list[str], batch: Batch) -> Tensor:
    """Return the rows of one modality's encoded variants that the views refer to.

    Args:
        requested: Variant that each of the ``W`` views asks for. For None (missing modality) any row will do, because
            the network ignores it.
        names: Names of the encoded variants, each of ``B`` rows.
        batch: Batch of ``B`` samples.

    Returns:
        Row indices, shape (W x B,), int64.
    """
    own = torch.arange(len(batch.image_present), device=batch.image_present.device)
    return torch.cat([own + len(own) * (0 if name is None else names.index(name)) for name in requested])
