"""Classifiers whose class probabilities are averaged, on batches that those with equal encoders share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusttune.encoders import FrozenEncoder
from robusttune.inference.batches import Batches, Prepared
from robusttune.inference.given_rows import GivenRows
from robusttune.models.classifier import ENCODERS, Classifier
from robusttune.models.fusion_classifier import FusionClassifier
from robusttune.types import Batch, Variants, View


class Computed(NamedTuple):
    """The class probabilities of a batch of ``B`` samples.

    Attributes:
        probabilities: Probabilities under each of ``W`` views, shape (W, B, C), float32.
        present: Flags that the sample has an image and that it has a text, shape (B, 2), bool.
        unreadable: For each sample the reason why its image cannot be read, or None.
    """

    probabilities: NDArray[np.float32]
    present: NDArray[np.bool_]
    unreadable: list[str | None]


@dataclass(frozen=True)
class Members:
    """The classifiers of a `Predictor`.

    Attributes:
        groups: Classifiers with equal encoders, with the builder of their batches.
    """

    groups: list[tuple[Batches, list[Classifier]]]

    @classmethod
    def of(cls, classifiers: Sequence[Classifier]) -> Members:
        """Group classifiers by their encoders."""
        groups: list[tuple[Batches, list[Classifier]]] = []
        for classifier in classifiers:
            for _, group in groups:
                if group[0].encoder_settings == classifier.encoder_settings:
                    group.append(classifier)
                    break
            else:
                groups.append((Batches(classifier), [classifier]))
        return cls(groups)

    def probabilities(
        self, given: GivenRows, views: Sequence[View], batch_size: int, unreadable_as_missing: bool
    ) -> Iterator[Computed]:
        """Yield the mean class probabilities of samples, batch by batch; see `Batches.of` for the arguments."""
        device = self.groups[0][1][0].device
        streams = [batches.of(given, batch_size, device, unreadable_as_missing) for batches, _ in self.groups]
        for prepared in zip(*streams, strict=True):
            yield self.mean(prepared, views)

    @torch.inference_mode()
    def mean(self, prepared: Sequence[Prepared], views: Sequence[View]) -> Computed:
        """Average the class probabilities of all classifiers.

        Args:
            prepared: Batch of each group, all of the same ``B`` samples.
            views: ``W`` views of the samples.
        """
        found: list[Tensor] = []
        for (_, group), (batch, _) in zip(self.groups, prepared, strict=True):
            inputs = encoded_once(group, batch)
            found += [classifier.probabilities(inputs, views) for classifier in group]
        batch, unreadable = prepared[0]
        present = torch.stack([batch.image_present, batch.text_present], 1)
        mean = found[0] if len(found) == 1 else torch.stack(found).mean(0)
        return Computed(mean.cpu().numpy(), present.cpu().numpy(), unreadable)

    def embeddings(self, given: GivenRows, batch_size: int) -> list[NDArray[np.float32]]:
        """Compute the embeddings of the only classifier: fused, of images and of texts; see `Classifier.embed`."""
        ((batches, (classifier,)),) = self.groups
        parts = []
        for batch, _ in batches.of(given, batch_size, classifier.device, unreadable_as_missing=False):
            with torch.inference_mode():
                parts.append([part.float().cpu() for part in classifier.embed(batch)])
        return [torch.cat(kind).numpy() for kind in zip(*parts, strict=True)]


def mean_thresholds(classifiers: Sequence[Classifier]) -> Tensor | None:
    """Return the mean thresholds of classifiers whose probabilities are averaged, shape (4, C), float32.

    Returns None for data with one label a sample.
    """
    found = [classifier.thresholds.values.float() for classifier in classifiers if classifier.thresholds is not None]
    return torch.stack(found).mean(0) if found else None


def encoded_once(group: Sequence[Classifier], batch: Batch) -> Batch:
    """Replace the inputs of a batch by their features, if several fusion networks share the same encoders.

    Args:
        group: Classifiers with equal encoders.
        batch: Batch on their device.
    """
    if len(group) == 1 or not all(isinstance(classifier, FusionClassifier) for classifier in group):
        return batch
    image, text = (group[0].encoder(name) for name in ENCODERS)
    return replace(batch, images=_features(image, batch.images), texts=_features(text, batch.texts))


def _features(encoder: FrozenEncoder, inputs: Variants) -> Variants:
    """Return the features of all rows of a modality.

    Inputs without rows stay as they are, and those of an encoder with updates (`LoRA`), because each classifier has its
    own.
    """
    return inputs if len(inputs) == 0 or encoder.settings.is_adapted else Variants(inputs.names, encoder(inputs.inputs))
