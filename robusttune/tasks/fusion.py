"""Training and evaluation of fusion networks, such as MoLT, on the features of two frozen encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from robusttune.encoders import ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.evaluation import sample_losses
from robusttune.models import CorrelationLoss, Fused, FusionModel, MoLT
from robusttune.models.base import zero_absent
from robusttune.models.losses import shuffled_correlation
from robusttune.models.runner import Runner
from robusttune.ranks import sum_over_ranks
from robusttune.settings import from_plain, to_plain
from robusttune.tasks.base import Losses, OptimizerCallable, RobustTask, adamw, mean_over_ranks
from robusttune.tasks.correlations import LayerCorrelations
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
            modality dropout, which draws one of the three: set ``data.training.modality_dropout`` to 0.
        label_smoothing: Fraction of each label that is spread evenly over all classes, in [0, 1).
        optimizer: Function that creates the optimiser of the trained parameters.
        schedule: Schedule of the learning rate.
        calibrate: True to fit temperatures, see `RobustTask`.
        compile: True to run the network through torch.compile; results are the same up to rounding.
        checkpoint_activations: True to recompute activations in the backward pass, which saves memory; results are the
            same.

    Raises:
        RobustTuneError: A weight, the momentum or the smoothing is out of its range, or ``beta`` is above 0 for a
            network without latents to correlate.
    """

    free_settings = (*RobustTask.free_settings, "every_pattern", "label_smoothing")

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
        optimizer: OptimizerCallable = adamw,
        schedule: Schedule = Schedule(),  # noqa: B008, the default is immutable
        calibrate: bool = False,
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
        super().__init__(image_encoder, text_encoder, facts, optimizer, schedule, calibrate)
        self.fusion_settings = fusion
        self.alpha = alpha
        self.beta = beta
        self.every_pattern = every_pattern
        self.label_smoothing = label_smoothing
        self.network = fusion.build(self.image_encoder.widths, self.text_encoder.widths, facts)
        self.network.run = Runner(compile, checkpoint_activations)
        if beta > 0 and self.network.view_shape[0] == 0:
            raise RobustTuneError(f"{type(fusion).__name__} has nothing to correlate: set model.beta to 0")
        self.correlation = CorrelationLoss(*self.network.view_shape, correlation_momentum)
        self._warned = False
        self._layer_correlations: LayerCorrelations | None = None  # set during a test only
        self._correlations: dict[str, list[float]] | None = None

    def settings(self) -> dict[str, Any]:
        """Return this task's own constructor arguments as plain data, see `RobustTask.settings`."""
        return {
            "fusion": to_plain(self.fusion_settings),
            "alpha": self.alpha,
            "beta": self.beta,
            "correlation_momentum": self.correlation.momentum,
            "every_pattern": self.every_pattern,
            "label_smoothing": self.label_smoothing,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any], **shared: Any) -> Self:
        """Construct a task from plain settings, encoders and facts, see `RobustTask.from_settings`."""
        return cls(**shared, **{**settings, "fusion": from_plain(settings["fusion"], FusionModel)})

    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        """Compute the losses of a training batch: ``task_loss``, ``correlation_loss`` and its chance level."""
        assert batch.label is not None
        # Hide padding rows, because a network may mix the rows of a batch.
        image_present, text_present = batch.image_present & batch.counted, batch.text_present & batch.counted
        image = self.image_encoder.encode(batch.images["clean"], batch.image_present)
        text = self.text_encoder.encode(batch.texts["clean"], batch.text_present)
        pairs = image_present & text_present
        if self.every_pattern:
            fused, by_sample = self._in_every_pattern(image, text, image_present, text_present, batch.label)
        else:
            fused = self.network(image, text, image_present, text_present)
            by_sample = sample_losses(fused.logits, batch.label, self.label_smoothing)
        task_loss = mean_over_ranks(by_sample, batch.counted)
        parts, loss = {"task_loss": task_loss}, self.alpha * task_loss
        if self.network.view_shape[0] > 0:
            parts["correlation_loss"] = self.correlation(fused.image_views, fused.text_views, pairs).float()
            parts |= self._chance_level(fused, pairs, batch_idx)
            loss = loss + self.beta * parts["correlation_loss"]
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
        image_shown = torch.cat([image_present, pairs, absent])
        text_shown = torch.cat([text_present, absent, pairs])
        image, text = zero_absent(image, image_present), zero_absent(text, text_present)
        fused = self.network.forward_pairs(image, text, rows, rows, image_shown, text_shown)
        losses = sample_losses(fused.logits, torch.cat([label] * 3), self.label_smoothing).view(3, -1)
        by_sample = torch.where(pairs, losses[0] / 2 + losses[1] / 4 + losses[2] / 4, losses[0])
        whole = (part.narrow(-2, 0, len(label)) for part in fused)
        return Fused(*whole), by_sample

    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        """Compute logits (W, B, C) under each of the ``W`` views, see `RobustTask.logits`.

        During a test, complete samples also count towards the canonical correlations.
        """
        names = [[*dict.fromkeys(filter(None, modality))] or ["clean"] for modality in zip(*views, strict=True)]
        image, text = (
            encoder.encode(inputs.pick(variants), present.repeat(len(variants)))
            for encoder, inputs, present, variants in (
                (self.image_encoder, batch.images, batch.image_present, names[0]),
                (self.text_encoder, batch.texts, batch.text_present, names[1]),
            )
        )
        rows = [_rows(asked, variants, batch) for asked, variants in zip(zip(*views, strict=True), names, strict=True)]
        present = [torch.cat(parts) for parts in zip(*(view.presence(batch) for view in views), strict=True)]
        fused = self.network.forward_pairs(image, text, *rows, *present)
        if self._layer_correlations is not None and View() in views:
            self._layer_correlations.update(batch, fused, views.index(View()) * len(batch))
        return fused.logits.reshape(len(views), len(batch.image_present), -1)

    def on_test_epoch_start(self) -> None:
        """Start new metrics, and canonical correlations if the network has latents to correlate."""
        super().on_test_epoch_start()
        self._layer_correlations = LayerCorrelations() if self.network.view_shape[0] > 0 else None

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
        if batch_idx == 0:
            self._warn_of_few_pairs(pairs)
        if not self.logs_this_step():
            return {}
        return {"shuffled_correlation_loss": -shuffled_correlation(fused.image_views, fused.text_views, pairs).float()}

    def _warn_of_few_pairs(self, pairs: Tensor) -> None:
        width, found = self.network.view_shape[1], int(sum_over_ranks(pairs.sum()))
        if found < 4 * width and self.beta > 0 and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"{found} complete pairs in a batch are few to correlate in {width} dimensions: "
                f"raise data.batch_size, or lower model.fusion.cca_dim to {max(1, found // 4)}"
            )


def _rows(asked: Sequence[str | None], names: list[str], batch: Batch) -> Tensor:
    """Return the rows of one modality's encoded variants that the views refer to.

    Args:
        asked: Variant that each of the ``W`` views asks for. For None (missing modality) any row will do, because the
            network ignores it.
        names: Names of the encoded variants, each of ``B`` rows.
        batch: Batch of ``B`` samples.

    Returns:
        Row indices, shape (W x B,), int64.
    """
    own = torch.arange(len(batch.image_present), device=batch.image_present.device)
    return torch.cat([own + len(own) * (0 if name is None else names.index(name)) for name in asked])
