"""Training and evaluation of fusion networks, such as MoLT, on the features of two frozen encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from robusttune.corruption.dropout import ModalityDropout
from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.models import Balance, CorrelationLoss, Fused, FusionModel, MoLT
from robusttune.models.base import zero_absent
from robusttune.models.fitted import Choice
from robusttune.models.fusion_classifier import FusionClassifier
from robusttune.models.losses import shuffled_correlation
from robusttune.ranks import sum_over_ranks
from robusttune.tasks.at_once import fit_at_once, refit_with_held_out, refuse_other_losses
from robusttune.tasks.balanced_loss import BalancedLoss
from robusttune.tasks.base import RobustTask
from robusttune.tasks.correlations import LayerCorrelations
from robusttune.tasks.fitted_on_validation import Threshold
from robusttune.tasks.losses import Losses, mean_over_ranks
from robusttune.tasks.optimisation import OptimizerCallable, adamw
from robusttune.tasks.schedule import Schedule
from robusttune.types import Batch, Encoded, Facts, View


class FusionTask(RobustTask):
    """A task that trains a fusion network with ``alpha`` x cross-entropy + ``beta`` x correlation loss.

    Source: MoLT (arXiv 2406.06048).

    Args:
        image_encoder: Settings of the image encoder.
        text_encoder: Settings of the text encoder.
        facts: Class names, class frequencies and kind of task, from the data.
        fusion: Settings of the fusion network.
        alpha: Weight of the cross-entropy (binary in multi-label data), at least 0.
        beta: Weight of the correlation loss, at least 0.
        correlation_momentum: Weight of the moments of earlier steps in the correlation loss, in [0, 1); 0 is off.
        every_pattern: True to train on each complete sample three times in every step: with both modalities, with its
            image alone and with its text alone. Its loss is 1/2 x both + 1/4 x image + 1/4 x text. This replaces
            modality dropout, which draws one of the three: set both probabilities of
            ``data.training.modality_dropout`` to 0.
        label_smoothing: Fraction of each label that is spread evenly over all classes, in [0, 1). In multi-label data,
            each label is moved towards the frequency of its class by this fraction of the distance.
        balance: Class weights, focal loss and logit adjustment for imbalanced classes.
        optimizer: Function that creates the optimiser of the trained parameters.
        decay_biases: False to leave parameters with ``bias`` in their names out of the optimiser's weight decay, as the
            published code of DCP and DPL does.
        schedule: Schedule of the learning rate.
        calibrate: True to fit temperatures, see `RobustTask`.
        threshold: Least probability of a predicted class in multi-label data, in (0, 1); ``fitted`` for thresholds
            that maximise F1 on validation samples, see `RobustTask`.
        compile: True to run the network through torch.compile; results are the same up to rounding.
        checkpoint_activations: True to recompute activations in the backward pass, which saves memory; results are the
            same.

    Raises:
        RobustTuneError: A weight, the momentum or the smoothing is out of its range, ``beta`` is above 0 for a
            network without latents to correlate, or a class lacks the training samples that ``balance`` needs.

    Example:
        >>> from robusttune.encoders import CLIPTextEncoder, TimmEncoder
        >>> image = TimmEncoder(name="test_vit", weights="random", layers=1, grid=2)
        >>> text = CLIPTextEncoder(name="robusttune:demo_clip", weights="random", first_layer=2)
        >>> task = FusionTask(image, text, Facts(["cat", "dog"], [0.5, 0.5], multilabel=False), beta=0.2)
        >>> task.classifier.network.view_shape
        (1, 16)
    """

    classifier: FusionClassifier
    free_settings = (*RobustTask.free_settings, "threshold", "every_pattern", "label_smoothing", "balance")

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        fusion: FusionModel = MoLT(),  # noqa: B008, the default is immutable
        alpha: float = 1.0,
        beta: float = 0.1,
        correlation_momentum: float = 0.0,
        every_pattern: bool = False,
        label_smoothing: float = 0.0,
        balance: Balance = Balance(),  # noqa: B008, the default is immutable
        optimizer: OptimizerCallable = adamw,
        decay_biases: bool = True,
        schedule: Schedule = Schedule(),  # noqa: B008, the default is immutable
        calibrate: bool = False,
        threshold: Threshold = "fitted",
        compile: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        if not (alpha >= 0 and beta >= 0 and 0 <= correlation_momentum < 1):  # This form refuses NaN, too.
            raise RobustTuneError(
                f"alpha {alpha}, beta {beta}, correlation_momentum {correlation_momentum} do not work: "
                "give weights of at least 0, and a momentum in [0, 1)"
            )
        if not 0 <= label_smoothing < 1:
            raise RobustTuneError(f"label_smoothing is {label_smoothing}: give a share in [0, 1)")
        classifier = FusionClassifier(
            *(image_encoder, text_encoder, facts, fusion, compile, checkpoint_activations), balance=balance
        )
        super().__init__(classifier, optimizer, schedule, calibrate, threshold)
        self.alpha = alpha
        self.beta = beta
        self.correlation_momentum = correlation_momentum
        self.every_pattern = every_pattern
        self.decay_biases = decay_biases
        self.label_smoothing = label_smoothing
        self.balanced_loss = BalancedLoss(balance, facts, label_smoothing)
        if beta > 0 and classifier.network.view_shape[0] == 0:
            raise RobustTuneError(f"{type(fusion).__name__} has nothing to correlate: set model.beta to 0")
        if not self.learns_by_steps:
            refuse_other_losses(type(fusion).__name__, balance, label_smoothing)
            self.validation_fit = replace(self.validation_fit, in_fit=False)
            self.choices: list[Choice | None] | None = None  # of the first fit, for the second
            self.nothing = nn.Parameter(torch.zeros(()))  # The optimiser and DDP need a parameter to train.
        self.correlation = CorrelationLoss(*classifier.network.view_shape, correlation_momentum)
        self._warned = False
        self._layer_correlations: LayerCorrelations | None = None  # set during a test only
        self._correlations: dict[str, list[float]] | None = None

    @property
    def learns_by_steps(self) -> bool:
        """Return whether optimiser steps train the network; otherwise it is fitted at once."""
        return not self.classifier.network.fitted_at_once

    def setup(self, stage: str) -> None:
        """Set the classes of the data, see `RobustTask.setup`.

        Raises:
            RobustTuneError: The model cannot predict the data's classes, or the training samples lose modalities by
                chance although each is trained in every pattern.
        """
        if stage == "fit" and self.every_pattern:
            _refuse_dropout(_modality_dropout(self.trainer.datamodule))  # type: ignore[attr-defined]
        super().setup(stage)

    def on_fit_start(self) -> None:
        """Log the number of parameters and notes, see `RobustTask.on_fit_start`, or fit the network at once."""
        if self.learns_by_steps:
            super().on_fit_start()
        else:
            fit_at_once(self)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch, see `RobustTask.training_step`. It changes no network that is fitted at once."""
        loss = super().training_step(batch, batch_idx)
        return loss if self.learns_by_steps else loss + 0.0 * self.nothing

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, see `RobustTask.on_validation_epoch_end`, and fit a network of one fit to all samples."""
        super().on_validation_epoch_end()
        if not self.learns_by_steps:
            refit_with_held_out(self)

    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        """Compute the losses of a training batch: ``task_loss``, ``correlation_loss`` and its chance level."""
        assert batch.label is not None
        # Hide padding rows, because a network may mix the rows of a batch.
        image_present, text_present = batch.image_present & batch.counted, batch.text_present & batch.counted
        image, text = self.classifier.encode(batch)
        pairs = image_present & text_present
        if self.every_pattern:
            fused, by_sample = self._in_every_pattern(image, text, image_present, text_present, batch.label)
        else:
            fused = self.classifier.network(image, text, image_present, text_present)
            by_sample = self._losses(fused, batch.label, image_present, text_present)
        task_loss = mean_over_ranks(by_sample, batch.counted, self.balanced_loss.weights(batch.label))
        parts, loss = {"task_loss": task_loss}, self.alpha * task_loss
        if self.classifier.network.view_shape[0] > 0:
            parts["correlation_loss"] = self.correlation(fused.image_views, fused.text_views, pairs).float()
            parts |= self._chance_level(fused, pairs, batch_idx)
            loss = loss + self.beta * parts["correlation_loss"]
        extra = self.classifier.network.extra_losses()
        parts, loss = parts | extra, loss + sum(extra.values())
        views = torch.cat([fused.image_views, fused.text_views]).isfinite().all(2).all(0)
        return Losses(loss, parts, by_sample.isfinite() & views)

    def _in_every_pattern(
        self, image: Encoded, text: Encoded, image_present: Tensor, text_present: Tensor, label: Tensor
    ) -> tuple[Fused, Tensor]:
        """Run each sample with all modalities it has, with its image alone and with its text alone.

        Returns:
            Output of the network for the samples with all their modalities, and losses, shape (B,), weighted over the
            three patterns for complete samples.
        """
        absent, pairs = torch.zeros_like(image_present), image_present & text_present
        rows = torch.arange(len(label), device=label.device).repeat(3)
        images_used = torch.cat([image_present, pairs, absent])
        texts_used = torch.cat([text_present, absent, pairs])
        image, text = zero_absent(image, image_present), zero_absent(text, text_present)
        fused = self.classifier.network.forward_pairs(image, text, rows, rows, images_used, texts_used)
        losses = self._losses(fused, torch.cat([label] * 3), images_used, texts_used).view(3, -1)
        by_sample = torch.where(pairs, losses[0] / 2 + losses[1] / 4 + losses[2] / 4, losses[0])
        whole = (part.narrow(-2, 0, len(label)) for part in fused)
        return Fused(*whole), by_sample

    def _losses(self, fused: Fused, label: Tensor, image_present: Tensor, text_present: Tensor) -> Tensor:
        """Return the loss of each row, shape (R,), given labels and masks of the modalities that the network saw."""
        logits = self.classifier.network.training_logits(fused.logits, label, image_present, text_present)
        losses: Tensor = self.balanced_loss(logits, label)
        return losses

    def metric_logits(self, batch: Batch, views: Sequence[View]) -> tuple[Tensor, None]:
        """Compute logits for metrics, see `Classifier.metric_logits`.

        During a test, complete samples also count towards the canonical correlations.
        """
        fused = self.classifier.fuse(batch, views)
        if self._layer_correlations is not None and View() in views:
            self._layer_correlations.update(batch, fused, views.index(View()) * len(batch))
        return fused.logits.reshape(len(views), len(batch.image_present), -1), None

    def on_test_epoch_start(self) -> None:
        """Start new metrics, and canonical correlations if the network has latents to correlate."""
        super().on_test_epoch_start()
        self._layer_correlations = LayerCorrelations() if self.classifier.network.view_shape[0] > 0 else None

    def on_test_epoch_end(self) -> None:
        """Log the metrics, and compute the canonical correlations."""
        super().on_test_epoch_end()
        if self._layer_correlations is not None:
            self._correlations, self._layer_correlations = self._layer_correlations.compute(), None

    def extra_results(self) -> dict[str, Any]:
        """Return the canonical correlations of the last test, see `LayerCorrelations.compute`."""
        return {} if self._correlations is None else {"canonical_correlation": self._correlations}

    def _chance_level(self, fused: Fused, pairs: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """Return the correlation loss of mismatched pairs, in steps that are logged."""
        if batch_idx == 0 and self.beta > 0 and not self._warned:
            self._warn_of_few_pairs(pairs)  # This waits for the device, so no other step of an epoch does it.
        if not self.logs_this_step():
            return {}
        return {"shuffled_correlation_loss": -shuffled_correlation(fused.image_views, fused.text_views, pairs).float()}

    def _warn_of_few_pairs(self, pairs: Tensor) -> None:
        width, found = self.classifier.network.view_shape[1], int(sum_over_ranks(pairs.sum()))
        if found < 4 * width:
            self._warned = True
            rank_zero_warn(
                f"{found} complete pairs in a batch are few to correlate in {width} dimensions: "
                f"raise data.batch_size, or lower model.fusion.cca_dim to {max(1, found // 4)}"
            )


def _modality_dropout(data: Any) -> ModalityDropout | None:
    """Return the modality dropout of a data module, or None if it has no such setting."""
    dropout: ModalityDropout | None = getattr(getattr(data, "training", None), "modality_dropout", None)
    return dropout


def _refuse_dropout(dropout: ModalityDropout | None) -> None:
    """Raise an error if samples that are trained in every pattern would also lose modalities by chance."""
    if dropout is not None and dropout.is_active:
        raise RobustTuneError(
            "model.every_pattern is true, and data.training.modality_dropout removes modalities (image_dropout "
            f"{dropout.image_dropout}, text_dropout {dropout.text_dropout}): set both probabilities to 0"
        )
