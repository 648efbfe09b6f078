"""The base class of all tasks: frozen encoders, training and evaluation steps, the optimiser, checkpoints."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from robusttune.corruption.conditions import Conditions
from robusttune.counting import counted
from robusttune.encoders import Encoder, FrozenEncoder, ImageEncoder, TextEncoder
from robusttune.errors import RobustTuneError
from robusttune.evaluation import ConditionMetrics
from robusttune.evaluation.metrics import probabilities
from robusttune.evaluation.temperature import PATTERNS, VIEWS, fit_temperatures, patterns
from robusttune.ranks import any_over_ranks, on_rank_zero, sum_over_ranks, world_size
from robusttune.settings import differences, from_plain, plain, to_plain
from robusttune.tasks.checkpoint import KEY, read_checkpoint, seal
from robusttune.tasks.schedule import Schedule
from robusttune.types import Batch, Facts, Split, View

OptimizerCallable = Callable[[Iterable[nn.Parameter]], Optimizer]
ENCODERS = ("image_encoder", "text_encoder")
KINDS: tuple[type, type] = (ImageEncoder, TextEncoder)
SPLITS: dict[str, Split] = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}


def adamw(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return the default optimiser: AdamW with learning rate 1e-3 and weight decay 0.05.

    Args:
        parameters: Parameters to train.
    """
    return AdamW(parameters, lr=1e-3, weight_decay=0.05)


class Losses(NamedTuple):
    """The losses of one training step.

    Attributes:
        loss: Loss to minimise, shape (). Its mean over the ranks is the loss over all rows of all ranks.
        parts: Further losses to log, by name, each of shape ().
        finite: Samples whose contribution to the loss is finite, shape (B,), bool.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    finite: Tensor


class RobustTask(LightningModule, ABC):
    """A LightningModule on frozen encoders, trained with missing modalities and tested under several conditions.

    A subclass builds its networks, defines their loss (`training_losses`) and computes logits for views of samples
    (`logits`).

    Args:
        image_encoder: Settings of the image encoder.
        text_encoder: Settings of the text encoder.
        facts: Class names, class frequencies and kind of task, from the data.
        optimizer: Function that creates the optimiser of the trained parameters.
        schedule: Schedule of the learning rate.
        calibrate: True to fit one temperature for each pattern of present modalities (both, image alone, text alone) in
            every validation of a fit. The checkpoint stores the temperatures, and tests and predictions divide logits
            by them. The validation metrics that a fit logs are computed without them.

    Attributes:
        class_names: Names of the classes that the model predicts now, in the order of logits; see `set_classes`.
        temperature: Temperatures of the patterns, shape (4,), float32; the last is for samples with neither modality
            and stays 1.
    """

    temperature: Tensor
    free_settings: tuple[str, ...] = ("calibrate",)  # These may differ from the checkpoint unless a fit is resumed.

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        optimizer: OptimizerCallable = adamw,
        schedule: Schedule = Schedule(),  # noqa: B008, the default is immutable
        calibrate: bool = False,
    ) -> None:
        super().__init__()
        self.encoder_settings: dict[str, Encoder] = {"image_encoder": image_encoder, "text_encoder": text_encoder}
        self.facts = facts
        self.optimizer = optimizer
        self.schedule = schedule
        self.calibrate = calibrate
        self.register_buffer("temperature", torch.ones(len(PATTERNS) + 1))  # The last one stays 1: no modality.
        self.image_encoder = image_encoder.load()
        self.text_encoder = text_encoder.load()
        self.class_names = facts.class_names
        self.metrics = ConditionMetrics(facts, Conditions())

    def monitored_metrics(self, conditions: Conditions) -> list[str]:
        """Return the names of the metrics that a validation logs, ``val/<condition>/<metric>``.

        A checkpoint or an early stop can monitor any of them.

        Args:
            conditions: Conditions of the validation.
        """
        return [f"val/{name}" for name in ConditionMetrics(self.facts, conditions).names]

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return this task's own constructor arguments as plain data, without encoders, facts and optimiser."""

    @abstractmethod
    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        """Compute the losses of a training batch.

        Args:
            batch: Labelled batch.
            batch_idx: Number of the batch in the epoch, from 0.
        """

    @abstractmethod
    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        """Compute class logits under each of the ``W`` views. Each variant of an input is encoded once.

        Args:
            batch: Batch of ``B`` samples.
            views: Views of the samples.

        Returns:
            Logits, shape (W, B, C).
        """

    def metric_logits(self, batch: Batch, views: Sequence[View]) -> tuple[Tensor, Tensor | None]:
        """Compute logits for metrics.

        Returns:
            Two tensors of shape (W, B, C): the logits if it is known which classes are new, that is, absent from
            training, and the logits if it is unknown. The second is None if it does not differ.
        """
        return self.logits(batch, views), None

    def extra_results(self) -> dict[str, Any]:
        """Return results of a test other than metrics, by name, as plain data."""
        return {}

    def set_classes(self, class_names: list[str]) -> None:
        """Set the classes that the model predicts from now on.

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

    @classmethod
    def from_settings(cls, settings: dict[str, Any], **shared: Any) -> Self:
        """Construct a task.

        Args:
            settings: Plain data that `settings` has returned.
            shared: Encoder settings and facts.
        """
        return cls(**shared, **settings)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed torch with (seed, epoch, batch, rank), so that a resumed run draws the same dropout masks."""
        seed = os.environ.get("PL_GLOBAL_SEED", "0")  # Lightning's seed_everything stores the seed there.
        position = f"{seed}/{self.current_epoch}/{batch_idx}/{self.global_rank}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(position.encode(), digest_size=8).digest(), "little"))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch, and log its parts, averaged over the ranks in steps that are logged.

        Raises:
            RobustTuneError: The loss is not finite.
        """
        losses = self.training_losses(batch, batch_idx)
        self._refuse_nonfinite_loss(losses, batch)
        values = torch.stack([losses.loss, *losses.parts.values()]).detach()
        if self.logs_this_step():
            values = sum_over_ranks(values) / world_size()  # One reduction: sync_dist needs two a value.
        for name, value in zip(("loss", *losses.parts), values, strict=True):
            self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=len(batch))
        return losses.loss

    def logs_this_step(self) -> bool:
        """Return whether the Trainer writes the logs of this training step."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a validation batch to the metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a test batch to the metrics."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[list[str], Tensor]:
        """Predict the samples of a batch, without added noise and with the modalities that they have.

        Returns:
            Sample ids, ``B`` strings, and class probabilities, shape (B, C), float32.
        """
        logits = self._calibrated(self.logits(batch, [View()]), batch, [View()])[0].float()
        return batch.sample_id, probabilities(logits, self.facts.multilabel)

    def on_validation_epoch_start(self) -> None:
        """Start new metrics, under the conditions of the validation split."""
        self._reset_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Start new metrics, under the conditions of the test split."""
        self._reset_metrics("test")

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, and fit the temperatures if calibration is on in a fit."""
        self._log_metrics("val")
        if self._fits_temperatures():
            metrics = self.metrics

            def fit(_: list[None]) -> list[float]:
                """Fit the temperatures to the gathered scores. This runs on rank 0, which alone has them."""
                assert metrics.gathered is not None
                return fit_temperatures(metrics.gathered, metrics.conditions.views)

            self.temperature[: len(PATTERNS)] = torch.tensor(on_rank_zero(None, fit))
        if self.trainer.state.fn == "fit":
            self.metrics.gathered = None  # Free the scores, which may take gigabytes.

    def on_test_epoch_end(self) -> None:
        """Log the metrics."""
        self._log_metrics("test")

    def on_fit_start(self) -> None:
        """Log the number of trained and frozen parameters."""
        rank_zero_info(self.parameter_line())

    def parameter_line(self) -> str:
        """Describe how many parameters are trained and frozen, including those of encoders whose memory was freed."""
        own = [p for name, p in self.named_parameters() if not self._is_frozen(name)]
        trained = sum(p.numel() for p in own if p.requires_grad)
        frozen = {name.replace("_", " "): self._encoder(name).size for name in ENCODERS}
        others = sum(p.numel() for p in own if not p.requires_grad)
        frozen |= {"others": others} if others else {}
        parts = ", ".join(f"{name} {number:,}" for name, number in frozen.items())
        verb = "is" if trained == 1 else "are"
        return f"{counted(trained, 'parameter')} {verb} trained, {sum(frozen.values()):,} are frozen ({parts})"

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimiser and the learning rate scheduler.

        Raises:
            RobustTuneError: The optimiser's arguments are invalid, or the training has no end to schedule towards.
        """
        try:
            optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        except ValueError as error:
            raise RobustTuneError(f"the optimizer cannot be made ({error}): correct model.optimizer") from error
        estimated = self.trainer.estimated_stepping_batches
        if estimated == float("inf"):
            raise RobustTuneError("the schedule has no end: set trainer.max_epochs or trainer.max_steps")
        total = int(estimated) if self.schedule.every == "step" else self.trainer.max_epochs
        if total is None or total < 0:
            raise RobustTuneError("model.schedule.every is epoch: set trainer.max_epochs")
        scheduler = LambdaLR(optimizer, lambda done: self.schedule.factor(done, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.schedule.every}}

    def setup(self, stage: str) -> None:
        """Set the classes of the data, and fill its feature cache if it has one.

        The encoders' memory is freed after the cache is filled.

        Raises:
            RobustTuneError: The model cannot predict the data's classes.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(data, "class_names"):
            self.set_classes(data.class_names(SPLITS[stage]))
        if getattr(data, "feature_cache", None) is not None:
            # The Trainer converts and moves the model in the same way, but only after this hook.
            convert, device = self.trainer.precision_plugin.convert_module, self.trainer.strategy.root_device
            data.fill_cache(stage, {name: convert(self._encoder(name)).to(device) for name in ENCODERS})
            self.before_encoder_release()
            for name in ENCODERS:
                self._encoder(name).release()

    def before_encoder_release(self) -> None:
        """Compute everything else that needs the encoders' weights, before their memory is freed."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remove the encoders' weights from the checkpoint, add the task's metadata, and add a digest of everything.

        Lightning calls this last, when everything else is in the checkpoint.
        """
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not self._is_frozen(key)}
        checkpoint[KEY] = self._metadata
        seal(checkpoint)

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        """The metadata of this task in its checkpoints, as plain data."""
        return {
            "task": type(self).__name__,
            "settings": {**self.settings(), "calibrate": self.calibrate},
            "facts": self.facts._asdict(),
            **{name: to_plain(self.encoder_settings[name]) for name in ENCODERS},
            "inputs": {name: self.encoder_settings[name].inputs() for name in ENCODERS},
            "sha256": {name: self._encoder(name).sha256 for name in ENCODERS},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits this task, and add the encoders' weights, so that strict loading works.

        Raises:
            RobustTuneError: The checkpoint has another task, other encoders, other settings or other weights. The
                message names all differences.
        """
        if KEY not in checkpoint:
            raise RobustTuneError("this is no checkpoint of robusttune: give one that `robusttune fit` wrote")
        self._refuse_contradictions(checkpoint[KEY])
        own = self.state_dict()
        shapes = {key: value.shape for key, value in own.items() if not self._is_frozen(key)}
        if {key: value.shape for key, value in checkpoint["state_dict"].items()} != shapes:
            raise RobustTuneError("the checkpoint lacks weights, or has others: give one of this version")
        checkpoint["state_dict"] |= {key: value for key, value in own.items() if self._is_frozen(key)}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, device: str | torch.device = "cpu") -> Self:  # type: ignore[override]
        """Load a trained task from its checkpoint, in evaluation mode.

        Args:
            checkpoint_path: Path of the checkpoint file.
            device: Device to move the task to.

        Raises:
            RobustTuneError: The file is no checkpoint of this project, or its encoders' weights are not available.
        """
        checkpoint = read_checkpoint(checkpoint_path)
        metadata = checkpoint[KEY]
        encoders = {name: from_plain(metadata[name], kind) for name, kind in zip(ENCODERS, KINDS, strict=True)}
        task = cls.from_settings(metadata["settings"], **encoders, facts=Facts(**metadata["facts"]))
        task.on_load_checkpoint(checkpoint)
        task.load_state_dict(checkpoint["state_dict"])
        return task.to(device).eval()

    def _refuse_nonfinite_loss(self, losses: Losses, batch: Batch) -> None:
        """Raise an error on all ranks if the loss of any rank is not finite, before the optimiser steps."""
        if not any_over_ranks(not losses.loss.isfinite().item()):
            return
        bad = ~losses.finite & batch.counted
        bad = bad if bad.any() else batch.counted  # No single sample is to blame.
        ids = {sample_id for sample_id, is_bad in zip(batch.sample_id, bad.tolist(), strict=True) if is_bad}

        def refuse(parts: list[tuple[set[str], int]]) -> None:
            """Raise the error, with the samples of all ranks."""
            names, rows = sorted(set().union(*(part[0] for part in parts))), sum(part[1] for part in parts)
            listed = f"{', '.join(map(repr, names[:5]))}{', ...' * (len(names) > 5)}"
            share = f"{len(names)} of its {rows}" if len(names) < rows else f"all its {rows}"
            raise RobustTuneError(
                f"the loss of step {self.global_step} in epoch {self.current_epoch} is not finite, because of {share} "
                f"samples, {listed}: lower model.optimizer.lr, or look at these samples; nothing was learned from them"
            )

        on_rank_zero((ids, int(batch.counted.sum())), refuse)

    def _evaluate(self, batch: Batch, stage: str) -> None:
        if batch.label is None:
            raise RobustTuneError("samples without labels cannot be evaluated: use predict")
        views, present = self.metrics.conditions.views, torch.stack([batch.image_present, batch.text_present], 1)
        known, unknown = self.metric_logits(batch, views)
        if not self._fits_temperatures():
            known = self._calibrated(known, batch, views)
            unknown = None if unknown is None else self._calibrated(unknown, batch, views)
        self.metrics.update(batch.sample_id, batch.label, present, known, unknown)

    def _calibrated(self, logits: Tensor, batch: Batch, views: Sequence[View]) -> Tensor:
        """Divide logits (W, B, C) by the temperature for the modalities that are present in each view."""
        present = torch.stack([batch.image_present, batch.text_present], 1)
        pattern = torch.stack([patterns(present, view) for view in views])
        return logits / self.temperature[pattern].unsqueeze(2)

    def _fits_temperatures(self) -> bool:
        return self.calibrate and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

    def _reset_metrics(self, split: Split) -> None:
        """Start new metrics under the data's conditions for a split."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        conditions = data.conditions(split) if hasattr(data, "conditions") else Conditions()
        if self._fits_temperatures():
            conditions = conditions.with_views(VIEWS)
        one_group = split == "test" and hasattr(data, "evaluation") and data.evaluation.classes == "test"
        self.metrics = ConditionMetrics(self.facts, conditions, self.class_names, one_group)

    def _log_metrics(self, stage: str) -> None:
        self.log_dict({f"{stage}/{key}": value for key, value in self.metrics.compute().items()})

    def _is_frozen(self, key: str) -> bool:
        return key.startswith(tuple(f"{name}." for name in ENCODERS))

    def _encoder(self, name: str) -> FrozenEncoder:
        encoder: FrozenEncoder = getattr(self, name)
        return encoder

    def _refuse_contradictions(self, metadata: dict[str, Any]) -> None:
        own, found = self._metadata, differences(self._comparable(self._metadata), self._comparable(metadata))
        found += [
            f"the weights of {name} are not those it was trained with"
            for name in ENCODERS
            if own["sha256"][name] != metadata["sha256"][name] and not any(line.startswith(name) for line in found)
        ]
        if self.facts.class_names != metadata["facts"]["class_names"]:
            found.append("the classes are not those it was trained with, or in another order")
        if found:
            raise RobustTuneError(
                f"the checkpoint contradicts the settings ({'; '.join(found)}): "
                "use the config.yaml of its run, without contradicting flags"
            )

    def _comparable(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Return the part of a checkpoint's metadata that must be the same in the task that loads it.

        The origin of the encoders' weights is left out: a folder may move, and the hashes of weights are compared.
        """
        encoders = {name: {**metadata[name], "init_args": dict(metadata[name]["init_args"])} for name in ENCODERS}
        for encoder in encoders.values():
            for origin in ("name", "weights", "revision"):
                del encoder["init_args"][origin]
        free = () if self._is_fitting() else self.free_settings
        model = {name: value for name, value in metadata["settings"].items() if name not in free}
        return {"task": metadata["task"], "model": model, "inputs": plain(metadata["inputs"]), **encoders}

    def _is_fitting(self) -> bool:
        """Return whether the Trainer runs a fit."""
        return self._trainer is not None and self._trainer.state.fn == "fit"


def mean_over_ranks(values: Tensor, counted: Tensor) -> Tensor:
    """Return this rank's part of the mean over the counted rows of all ranks.

    DDP averages gradients over ranks. The parts are scaled so that their average over the ranks is the mean over all
    counted rows, even if the ranks have different numbers of them.

    Args:
        values: One value a row, shape (B,).
        counted: Rows to average over, shape (B,), bool.

    Returns:
        Scalar tensor, shape ().

    Example:
        >>> mean_over_ranks(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))  # one process
        tensor(2.)
    """
    total = sum_over_ranks(counted.sum()).clamp(min=1)
    return torch.where(counted, values, 0.0).sum() * world_size() / total
