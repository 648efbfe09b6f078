"""Fusion of both frozen encoders' outputs into one answer: MoLT and whatever takes its place."""

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
from robusttune.models.base import keep
from robusttune.models.losses import shuffled_correlation
from robusttune.models.runner import Runner
from robusttune.ranks import sum_over_ranks
from robusttune.settings import from_plain, to_plain
from robusttune.tasks.base import Losses, OptimizerCallable, RobustTask, adamw, mean_over_ranks
from robusttune.tasks.correlations import LayerCorrelations
from robusttune.tasks.schedule import Schedule
from robusttune.types import Batch, Encoded, Facts, View


class FusionTask(RobustTask):
    """``alpha`` x cross-entropy + ``beta`` x correlation loss (arXiv 2406.06048).

    Args:
        image_encoder: settings of the image encoder.
        text_encoder: settings of the text encoder.
        facts: class names, class frequencies and task kind, from the data.
        fusion: settings of the fusion network.
        alpha: weight of the cross-entropy (binary in multi-label data), at least 0.
        beta: weight of the correlation loss, at least 0.
        correlation_momentum: share of earlier steps' moments in the correlation loss, in [0, 1); 0 is off.
        every_pattern: show each complete sample as it is, by its image alone and by its text alone in every step, where
            modality dropout (``data.corruption``, to be set to 0) would draw one of them. Half of its loss is of the
            whole, and a quarter of each side.
        label_smoothing: how much of a label is spread over all classes alike, in [0, 1).
        optimizer: makes the optimiser of the trained parameters.
        schedule: of the learning rate.
        calibrate: fit temperatures, see `RobustTask`.
        compile: run the network through torch.compile; results are the same but for rounding.
        checkpoint_activations: keep less for the backward pass and compute it again there; results are the same.
    """

    free_settings = (*RobustTask.free_settings, "every_pattern", "label_smoothing")

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        fusion: FusionModel = MoLT(),  # noqa: B008, it is frozen
        alpha: float = 1.0,
        beta: float = 0.1,
        correlation_momentum: float = 0.0,
        every_pattern: bool = False,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = adamw,
        schedule: Schedule = Schedule(),  # noqa: B008, it is frozen
        calibrate: bool = False,
        compile: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        if not (alpha >= 0 and beta >= 0 and 0 <= correlation_momentum < 1):  # not a number is none of it
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
        self._pairs: LayerCorrelations | None = None  # while they are measured
        self._correlations: dict[str, list[float]] | None = None

    def settings(self) -> dict[str, Any]:
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
        return cls(**shared, **{**settings, "fusion": from_plain(settings["fusion"], FusionModel)})

    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        assert batch.label is not None
        # A network that looks at a whole batch must not look at rows that only fill it up.
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
        """What the network makes of the samples as they are, and losses (B,), those of each side alone included."""
        nothing, pairs = torch.zeros_like(image_present), image_present & text_present
        own = torch.arange(len(label), device=label.device).repeat(3)
        image_shown = torch.cat([image_present, pairs, nothing])
        text_shown = torch.cat([text_present, nothing, pairs])
        image, text = keep(image, image_present), keep(text, text_present)
        seen = self.network.seen(image, text, own, own, image_shown, text_shown)
        losses = sample_losses(seen.logits, torch.cat([label] * 3), self.label_smoothing).view(3, -1)
        by_sample = torch.where(pairs, losses[0] / 2 + losses[1] / 4 + losses[2] / 4, losses[0])
        whole = (part.narrow(-2, 0, len(label)) for part in seen)
        return Fused(*whole), by_sample

    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        names = [[*dict.fromkeys(filter(None, side))] or ["clean"] for side in zip(*views, strict=True)]
        image, text = (
            encoder.encode(inputs.pick(asked), present.repeat(len(asked)))
            for encoder, inputs, present, asked in (
                (self.image_encoder, batch.images, batch.image_present, names[0]),
                (self.text_encoder, batch.texts, batch.text_present, names[1]),
            )
        )
        rows = [_rows(side, asked, batch) for side, asked in zip(zip(*views, strict=True), names, strict=True)]
        shown = [torch.cat(sides) for sides in zip(*(view.presence(batch) for view in views), strict=True)]
        fused = self.network.seen(image, text, *rows, *shown)
        if self._pairs is not None and View() in views:
            self._pairs.update(batch, fused, views.index(View()) * len(batch))
        return fused.logits.reshape(len(views), len(batch.image_present), -1)

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self._pairs = LayerCorrelations() if self.network.view_shape[0] > 0 else None

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        if self._pairs is not None:
            self._correlations, self._pairs = self._pairs.compute(), None

    def findings(self) -> dict[str, Any]:
        return {} if self._correlations is None else {"canonical_correlation": self._correlations}

    def _chance_level(self, fused: Fused, pairs: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """In steps that are logged, what the correlation loss would be for pairs that do not belong together."""
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
    """(W x B,) rows of the variants ``names`` of a batch at which each of the ``W`` views looks.

    A withheld side takes the place of some variant in the network, which must not and does not look at it.
    """
    own = torch.arange(len(batch.image_present), device=batch.image_present.device)
    return torch.cat([own + len(own) * (0 if name is None else names.index(name)) for name in asked])
