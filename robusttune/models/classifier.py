"""The base class of classifiers: from a batch of images and texts to class scores, without a trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robusttune.encoders import Encoder, FrozenEncoder, ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.models.balance import Balance, prior_logits, refuse_empty_classes
from robusttune.models.temperatures import Temperatures
from robusttune.models.thresholds import Thresholds
from robusttune.predictions import probabilities
from robusttune.types import Batch, Facts, View

ENCODERS = ("image_encoder", "text_encoder")


class Classifier(nn.Module, ABC):
    """Frozen encoders, a trained network, temperatures and a label set: everything that predicts classes.

    A subclass builds its network and computes logits for views of samples (`logits`).

    Args:
        image_encoder: Settings of the image encoder.
        text_encoder: Settings of the text encoder.
        facts: Class names, class frequencies and kind of task, from the training data.
        balance: Settings for imbalanced classes, whose ``post_hoc`` part adjusts predictions.

    Attributes:
        image_encoder: Frozen image encoder.
        text_encoder: Frozen text encoder.
        encoder_settings: Settings of both encoders, by the names in `ENCODERS`.
        temperatures: Temperatures that calibrate the logits.
        thresholds: Thresholds of predicted classes in multi-label data; None in other data.
        class_names: Names of the classes that are predicted now, in the order of logits; see `set_classes`.

    Raises:
        RobustTuneError: Predictions are adjusted to class frequencies, and a class has no training sample.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        balance: Balance = Balance(),  # noqa: B008, the default is immutable
    ) -> None:
        super().__init__()
        if balance.post_hoc > 0:
            refuse_empty_classes("post_hoc", facts)
        self.balance = balance
        self.encoder_settings: dict[str, Encoder] = {"image_encoder": image_encoder, "text_encoder": text_encoder}
        self.facts = facts
        self.class_names = facts.class_names
        self.temperatures = Temperatures()
        self.thresholds = Thresholds(len(facts.class_names)) if facts.multilabel else None
        self.image_encoder = image_encoder.load()
        self.text_encoder = text_encoder.load()

    @abstractmethod
    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        """Compute class logits under each of the ``W`` views. Each variant of an input is encoded once.

        Args:
            batch: Batch of ``B`` samples.
            views: Views of the samples.

        Returns:
            Logits without adjustment and temperatures, shape (W, B, C).
        """

    def metric_logits(self, batch: Batch, views: Sequence[View]) -> tuple[Tensor, Tensor | None]:
        """Compute logits for metrics.

        Returns:
            Two tensors of shape (W, B, C): the logits if it is known which classes are new, that is, absent from
            training, and the logits if it is unknown. The second is None if it does not differ.
        """
        return self.logits(batch, views), None

    def adjusted(self, logits: Tensor) -> Tensor:
        """Subtract the logits of the class frequencies, if ``balance.post_hoc`` is on; see `Balance`.

        Args:
            logits: Logits of `logits` or `metric_logits`, shape (W, B, C).

        Returns:
            Adjusted logits, shape (W, B, C).
        """
        if self.balance.post_hoc == 0:
            return logits
        return logits - self.balance.post_hoc * prior_logits("post_hoc", self.facts, self.class_names).to(logits)

    def calibrated(self, logits: Tensor, batch: Batch, views: Sequence[View]) -> Tensor:
        """Divide logits by the temperature of the modalities that are present in each view.

        Args:
            logits: Logits of `adjusted`, shape (W, B, C).
            batch: Batch that they were computed from.
            views: Views that they were computed for.

        Returns:
            Calibrated logits, shape (W, B, C).
        """
        calibrated: Tensor = self.temperatures(logits, torch.stack([batch.image_present, batch.text_present], 1), views)
        return calibrated

    def scores(
        self, logits: tuple[Tensor, Tensor | None], batch: Batch, views: Sequence[View], calibrate: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Adjust and calibrate the logits for metrics.

        Args:
            logits: Two tensors of shape (W, B, C), see `metric_logits`. The second may be None.
            batch: Batch of ``B`` samples that they were computed from.
            views: ``W`` views that they were computed for.
            calibrate: False to leave the temperatures out.
        """
        known, unknown = (None if part is None else self.adjusted(part) for part in logits)
        assert known is not None
        if not calibrate:
            return known, unknown
        return self.calibrated(known, batch, views), None if unknown is None else self.calibrated(unknown, batch, views)

    def probabilities(self, batch: Batch, views: Sequence[View] = (View(),)) -> Tensor:
        """Compute calibrated class probabilities of a batch.

        Args:
            batch: Batch of ``B`` samples.
            views: ``W`` views of the samples; by default one, without added noise and with the modalities that the
                samples have.

        Returns:
            Probabilities, shape (W, B, C), float32. In multi-label data each class has its own, otherwise those of all
            classes sum to 1.
        """
        logits = self.calibrated(self.adjusted(self.logits(batch, views)), batch, views).float()
        return probabilities(logits, self.facts.multilabel)

    @property
    def cuts(self) -> Tensor | None:
        """Return the least calibrated logits of predicted classes, shape (4, C); None without thresholds."""
        return None if self.thresholds is None else self.thresholds.cuts

    @abstractmethod
    def embed(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Compute embeddings of the samples of a batch, with the modalities that they have.

        Args:
            batch: Batch of ``B`` samples.

        Returns:
            Three tensors: embeddings of image and text together (B, d), of the images (B, d_i), and of the texts
            (B, d_t). Rows without the modality are NaN in the latter two.
        """

    def set_classes(self, class_names: list[str]) -> None:
        """Set the classes that are predicted from now on.

        Args:
            class_names: Names of the classes, in label order.

        Raises:
            RobustTuneError: The classes differ from those of training, and the model cannot predict others.
        """
        if class_names != self.facts.class_names:
            raise RobustTuneError(
                "the data's classes are not the model's, or in another order: give the data module facts=task.facts, "
                "so that labels are mapped by name, and leave data.evaluation.classes at training"
            )

    def encoder(self, name: str) -> FrozenEncoder:
        """Return an encoder by its name in `ENCODERS`."""
        encoder: FrozenEncoder = getattr(self, name)
        return encoder

    def release_encoders(self) -> None:
        """Free the memory of the encoders, when all features are cached. They load their weights again if needed."""
        for name in ENCODERS:
            self.encoder(name).release()

    @property
    def device(self) -> torch.device:
        """Return the device of the classifier."""
        return self.temperatures.values.device
