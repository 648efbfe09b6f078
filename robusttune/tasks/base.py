"""The base class of all tasks: training and evaluation steps around a classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from robusttune.corruption.conditions import Conditions
from robusttune.errors import RobustTuneError
from robusttune.evaluation import ConditionMetrics
from robusttune.models.classifier import Classifier
from robusttune.ranks import sum_over_ranks, world_size
from robusttune.tasks.balance_checks import note_of_imbalance, refuse_double_correction
from robusttune.tasks.cache_filling import CacheFilling
from robusttune.tasks.checkpoint import complete_loaded, complete_saved, load_task, metadata_of
from robusttune.tasks.fit_notes import notes_before_fit
from robusttune.tasks.fitted_on_validation import Threshold, ValidationFit
from robusttune.tasks.losses import FiniteCheck, Losses
from robusttune.tasks.optimisation import OptimizerCallable, adamw, optimizer_with_schedule
from robusttune.tasks.parameters import describe_parameters
from robusttune.tasks.schedule import Schedule
from robusttune.tasks.seeding import seed_step
from robusttune.types import STAGE_SPLITS, Batch, Split, View


class RobustTask(LightningModule, ABC):
    """A LightningModule that trains a classifier with missing modalities and tests it under several conditions.

    A subclass constructs the classifier and defines the loss (`training_losses`). Each argument of its constructor is
    an attribute of the same name of the task, or of the classifier if its constructor takes it, too. The exceptions
    are listed in `checkpoint.UNSTORED`.

    Args:
        classifier: Classifier to train and evaluate.
        optimizer: Function that creates the optimiser of the trained parameters.
        schedule: Schedule of the learning rate.
        calibrate: True to fit a temperature for each pattern of present modalities in every validation of a fit. Tests
            and predictions divide logits by them; the validation metrics that a fit logs are computed without them.
        threshold: Least probability of a predicted class in multi-label data, in (0, 1); or ``fitted`` to fit
            thresholds in every validation of a fit, see `fit_thresholds`. Other data have none.

    Attributes:
        facts: Class names, class frequencies and kind of task, from the training data.
        metrics: Metrics of the validation or test that runs or ran last.
        decay_biases: False to leave biases out of weight decay, see `parameter_groups`.
    """

    decay_biases = True

    free_settings: tuple[str, ...] = ("calibrate",)  # These may differ from the checkpoint unless a fit is resumed.

    def __init__(
        self,
        classifier: Classifier,
        optimizer: OptimizerCallable = adamw,
        schedule: Schedule = Schedule(),  # noqa: B008, the default is immutable
        calibrate: bool = False,
        threshold: Threshold = "fitted",
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.facts = classifier.facts
        self.optimizer = optimizer
        self.schedule = schedule
        self.calibrate = calibrate
        self.threshold = threshold
        self.validation_fit = ValidationFit(classifier, calibrate, threshold)
        self.metrics = ConditionMetrics(self.facts, Conditions())
        self._finite_check: FiniteCheck | None = None  # set between a forward and its backward pass only

    @property
    def learns_by_steps(self) -> bool:
        """Return whether optimiser steps train the task; False if nothing is trained, or all is fitted at once."""
        return True

    @abstractmethod
    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        """Compute the losses of a training batch.

        Args:
            batch: Labelled batch.
            batch_idx: Number of the batch in the epoch, from 0.
        """

    def metric_logits(self, batch: Batch, views: Sequence[View]) -> tuple[Tensor, Tensor | None]:
        """Compute logits for metrics, see `Classifier.metric_logits`."""
        return self.classifier.metric_logits(batch, views)

    def monitored_metrics(self, conditions: Conditions) -> list[str]:
        """Return the metrics that a validation logs and a checkpoint can monitor, ``val/<condition>/<metric>``.

        Args:
            conditions: Conditions of the validation.
        """
        return [f"val/{name}" for name in ConditionMetrics(self.facts, conditions).names]

    def extra_results(self) -> dict[str, Any]:
        """Return results of a test other than metrics, by name, as plain data."""
        return {}

    def set_classes(self, class_names: list[str]) -> None:
        """Set the classes that the classifier predicts from now on, see `Classifier.set_classes`."""
        self.classifier.set_classes(class_names)

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback that fills the feature cache, unless the Trainer has it from an earlier run."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return [] if any(isinstance(callback, CacheFilling) for callback in callbacks) else [CacheFilling()]

    def setup(self, stage: str) -> None:
        """Set the classes of the data. A second call changes nothing.

        Raises:
            RobustTuneError: The model cannot predict the data's classes, or the class frequencies of the training
                data would be corrected twice.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit":
            refuse_double_correction(self.classifier.balance, data)
        if hasattr(data, "class_names"):
            names = data.class_names(STAGE_SPLITS[stage][0])
            if names != self.classifier.class_names:
                self.set_classes(names)

    def on_fit_end(self) -> None:
        """Log the thresholds of multi-label data."""
        self.validation_fit.log_thresholds()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimiser and its learning rate scheduler, see `optimizer_with_schedule`."""
        return optimizer_with_schedule(self, self.optimizer, self.schedule, self.decay_biases)

    def on_fit_start(self) -> None:
        """Log the number of parameters, a note if imbalanced classes are not balanced yet, and `notes_before_fit`."""
        rank_zero_info(describe_parameters(self))
        note = note_of_imbalance(self.facts, self.classifier.balance, self.trainer.datamodule)  # type: ignore[attr-defined]
        for each in ([] if note is None else [note]) + notes_before_fit(self):
            rank_zero_info(each)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the random numbers of the step, see `seed_step`."""
        seed_step(self.current_epoch, batch_idx, self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch. In steps that are logged, log it with its parts, averaged over the ranks."""
        losses = self.training_losses(batch, batch_idx)
        self._finite_check = FiniteCheck(losses, batch, self.global_step, self.current_epoch)
        if self.logs_this_step():
            values = torch.stack([losses.loss, *losses.parts.values()]).detach()
            values = sum_over_ranks(values) / world_size()  # One reduction: sync_dist needs two a value.
            for name, value in zip(("loss", *losses.parts), values, strict=True):
                self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=len(batch))
        return losses.loss

    def on_after_backward(self) -> None:
        """Check that the loss is finite before the optimiser uses its gradient, see `FiniteCheck.finish`."""
        check, self._finite_check = self._finite_check, None
        if check is not None:
            check.finish()

    def logs_this_step(self) -> bool:
        """Return whether the Trainer writes the logs of this training step."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a validation batch to the metrics."""
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a test batch to the metrics."""
        self._evaluate(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[list[str], Tensor]:
        """Return ids and class probabilities (B, C), float32, of samples with the modalities that they have."""
        return batch.sample_id, self.classifier.probabilities(batch)[0]

    def on_validation_epoch_start(self) -> None:
        """Start new metrics, under the conditions of the validation split."""
        self.metrics = self.new_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Start new metrics, under the conditions of the test split, and log the thresholds of multi-label data."""
        self.metrics = self.new_metrics("test")
        self.validation_fit.log_thresholds()

    def on_validation_epoch_end(self) -> None:
        """Fit temperatures and thresholds in a fit, and log the metrics."""
        self.validation_fit.fit(self.metrics, self.trainer)
        self._log_metrics("val")
        if self.trainer.state.fn == "fit":
            self.metrics.free()  # The scores may take gigabytes.

    def on_test_epoch_end(self) -> None:
        """Log the metrics."""
        self._log_metrics("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remove the encoders' weights from the checkpoint, add the task's metadata, and add a digest of everything."""
        complete_saved(checkpoint, self._metadata)  # Lightning calls this last, when everything else is there.

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits this task, and add the encoders' weights, so that strict loading works.

        Raises:
            RobustTuneError: It does not. The message names all differences of task, encoders, settings and weights.
        """
        self.validation_fit.overrule(checkpoint)
        is_fitting = self._trainer is not None and self._trainer.state.fn == "fit"
        complete_loaded(checkpoint, self._metadata, () if is_fitting else self.free_settings, self.state_dict())

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, device: str | torch.device = "cpu") -> Self:  # type: ignore[override]
        """Load a trained task from its checkpoint, in evaluation mode.

        Args:
            checkpoint_path: Folder of a run, whose best checkpoint is loaded, or path of a checkpoint file.
            device: Device to move the task to.

        Raises:
            RobustTuneError: The file is no checkpoint of this project, or its encoders' weights are not available.
        """
        return load_task(cls, checkpoint_path, device)

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        return metadata_of(self)

    def _evaluate(self, batch: Batch) -> None:
        if batch.label is None:
            raise RobustTuneError("samples without labels cannot be evaluated: use predict")
        views = self.metrics.conditions.views
        logits = self.metric_logits(batch, views)
        known, unknown = self.classifier.scores(
            logits, batch, views, calibrate=not self.validation_fit.temperatures(self.trainer)
        )
        present = torch.stack([batch.image_present, batch.text_present], 1)
        self.metrics.update(batch.sample_id, batch.label, present, known, unknown)

    def new_metrics(self, split: Split) -> ConditionMetrics:
        """Return metrics without samples, under the data's conditions for a split.

        Args:
            split: Split to evaluate, ``val`` or ``test``.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        conditions = data.conditions(split) if hasattr(data, "conditions") else Conditions()
        conditions = self.validation_fit.conditions(conditions, self.trainer)
        one_group = split == "test" and hasattr(data, "evaluation") and data.evaluation.classes == "test"
        names, cuts = self.classifier.class_names, self.classifier.cuts
        return ConditionMetrics(self.facts, conditions, names, one_group, cuts)

    def _log_metrics(self, stage: str) -> None:
        self.log_dict({f"{stage}/{key}": value for key, value in self.metrics.compute().items()})
