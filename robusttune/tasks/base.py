"""What every task shares: frozen encoders, steps, conditions, the optimiser, what a checkpoint holds."""

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
    """The default optimiser."""
    return AdamW(parameters, lr=1e-3, weight_decay=0.05)


class Losses(NamedTuple):
    """What a training step gives.

    Attributes:
        loss: () the one to minimise; averaged over the ranks it is that of all rows of all ranks.
        parts: () each, what is logged beside it, by name.
        finite: (B,) bool, whether all that a sample gives to the loss is finite.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    finite: Tensor


class RobustTask(LightningModule, ABC):
    """A model on frozen encoders, trained on samples of which a side may be missing, tested under every condition.

    A subclass builds its networks, says what loss they are trained with, and gives logits for what is shown of samples.

    Args:
        image_encoder: settings of the image encoder.
        text_encoder: settings of the text encoder.
        facts: class names, class frequencies and task kind, from the data.
        optimizer: makes the optimiser of the trained parameters.
        schedule: of the learning rate.
        calibrate: fit a temperature to each pattern of what is present (both sides, image alone, text alone) in every
            validation of a fit; the checkpoint keeps them, and tests and predictions divide logits by them. What a fit
            logs of its validations is measured without.

    Attributes:
        class_names: of the classes that are told apart now, in the order of logits; see `set_classes`.
    """

    temperature: Tensor
    free_settings: tuple[str, ...] = ("calibrate",)  # that need be those of the checkpoint only where a fit goes on

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        facts: Facts,
        optimizer: OptimizerCallable = adamw,
        schedule: Schedule = Schedule(),  # noqa: B008, it is frozen
        calibrate: bool = False,
    ) -> None:
        super().__init__()
        self.encoder_settings: dict[str, Encoder] = {"image_encoder": image_encoder, "text_encoder": text_encoder}
        self.facts = facts
        self.optimizer = optimizer
        self.schedule = schedule
        self.calibrate = calibrate
        self.register_buffer("temperature", torch.ones(len(PATTERNS) + 1))  # the last is that of nothing, and stays 1
        self.image_encoder = image_encoder.load()
        self.text_encoder = text_encoder.load()
        self.class_names = facts.class_names
        self.metrics = ConditionMetrics(facts, Conditions())

    def measured(self, conditions: Conditions) -> list[str]:
        """What validation logs, and so what can be monitored."""
        return [f"val/{name}" for name in ConditionMetrics(self.facts, conditions).names]

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """This task's own constructor arguments as plain data, without encoders, facts and optimiser."""

    @abstractmethod
    def training_losses(self, batch: Batch, batch_idx: int) -> Losses:
        """What the batch is trained with."""

    @abstractmethod
    def logits(self, batch: Batch, views: Sequence[View]) -> Tensor:
        """Logits (W, B, C) of each of the ``W`` views; each variant of an input is encoded once."""

    def evaluation_logits(self, batch: Batch, views: Sequence[View]) -> tuple[Tensor, Tensor | None]:
        """Logits of each view; and those of not being told which samples are of new classes, if they differ."""
        return self.logits(batch, views), None

    def findings(self) -> dict[str, Any]:
        """What a test found beside metrics, by name, as plain data."""
        return {}

    def set_classes(self, class_names: list[str]) -> None:
        """Answer with one of these classes from now on.

        Args:
            class_names: in label order.

        Raises:
            RobustTuneError: they are not those of training, and the model knows no others.
        """
        if class_names != self.facts.class_names:
            raise RobustTuneError(
                "the data's classes are not the model's, or in another order: give the data module facts=task.facts, "
                "so that labels are mapped by name, and leave data.answers at known"
            )

    @classmethod
    def from_settings(cls, settings: dict[str, Any], **shared: Any) -> Self:
        """The task of `settings`; ``shared`` are encoders and facts."""
        return cls(**shared, **settings)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make dropout a function of (seed, epoch, batch, rank), so that a resumed run goes on exactly."""
        seed = os.environ.get("PL_GLOBAL_SEED", "0")  # where Lightning's seed_everything leaves it
        position = f"{seed}/{self.current_epoch}/{batch_idx}/{self.global_rank}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(position.encode(), digest_size=8).digest(), "little"))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.training_losses(batch, batch_idx)
        self._refuse_what_is_not_finite(losses, batch)
        values = torch.stack([losses.loss, *losses.parts.values()]).detach()
        if self.logs_this_step():
            values = sum_over_ranks(values) / world_size()  # all at once: sync_dist waits for the ranks twice a value
        for name, value in zip(("loss", *losses.parts), values, strict=True):
            self.log(f"train/{name}", value, prog_bar=name == "loss", batch_size=len(batch))
        return losses.loss

    def logs_this_step(self) -> bool:
        """Whether what the training step logs is written down."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[list[str], Tensor]:
        """Ids and probabilities (B, C) of the samples as they are."""
        logits = self._calibrated(self.logits(batch, [View()]), batch, [View()])[0].float()
        return batch.sample_id, probabilities(logits, self.facts.multilabel)

    def on_validation_epoch_start(self) -> None:
        self._measure_anew("val")

    def on_test_epoch_start(self) -> None:
        self._measure_anew("test")

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")
        if self._fits_temperatures():
            metrics = self.metrics

            def fit(_: list[None]) -> list[float]:
                assert metrics.gathered is not None
                return fit_temperatures(metrics.gathered, metrics.conditions.views)

            self.temperature[: len(PATTERNS)] = torch.tensor(on_rank_zero(None, fit))
        if self.trainer.state.fn == "fit":
            self.metrics.gathered = None  # which may be gigabytes

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def on_fit_start(self) -> None:
        rank_zero_info(self.parameter_line())

    def parameter_line(self) -> str:
        """Return how many parameters are trained and frozen, those of encoders included that were released."""
        own = [p for name, p in self.named_parameters() if not self._is_frozen(name)]
        trained = sum(p.numel() for p in own if p.requires_grad)
        frozen = {name.replace("_", " "): self._encoder(name).size for name in ENCODERS}
        others = sum(p.numel() for p in own if not p.requires_grad)
        frozen |= {"others": others} if others else {}
        parts = ", ".join(f"{name} {number:,}" for name, number in frozen.items())
        verb = "is" if trained == 1 else "are"
        return f"{counted(trained, 'parameter')} {verb} trained, {sum(frozen.values()):,} are frozen ({parts})"

    def configure_optimizers(self) -> OptimizerLRScheduler:
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
        """Take up the data's classes, unless the model does not know them; fill the data's cache."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(data, "class_names"):
            self.set_classes(data.class_names(SPLITS[stage]))
        if getattr(data, "cache", None) is not None:
            # As the Trainer is going to, but later.
            convert, device = self.trainer.precision_plugin.convert_module, self.trainer.strategy.root_device
            data.fill_cache(stage, {name: convert(self._encoder(name)).to(device) for name in ENCODERS})
            self.before_release()
            for name in ENCODERS:
                self._encoder(name).release()

    def before_release(self) -> None:
        """Take what else is wanted of the encoders' weights, before their memory is given back."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the encoders' weights out; write down what they and the task were, and seal it all with a digest.

        Lightning calls this last, when everything else is in the checkpoint.
        """
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: value for key, value in state.items() if not self._is_frozen(key)}
        checkpoint[KEY] = self._about
        seal(checkpoint)

    @cached_property
    def _about(self) -> dict[str, Any]:
        """What a checkpoint says of the task that it is of, as plain data."""
        return {
            "task": type(self).__name__,
            "settings": {**self.settings(), "calibrate": self.calibrate},
            "facts": self.facts._asdict(),
            **{name: to_plain(self.encoder_settings[name]) for name in ENCODERS},
            "inputs": {name: self.encoder_settings[name].inputs() for name in ENCODERS},
            "sha256": {name: self._encoder(name).sha256 for name in ENCODERS},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is of this task, and lend it the encoders' weights so that loading is strict.

        Raises:
            RobustTuneError: it is of another task, other encoders or other settings; all differences are named.
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
        """The task as it was trained.

        Raises:
            RobustTuneError: the file is no checkpoint of this project, or its encoders' weights are not to be had.
        """
        checkpoint = read_checkpoint(checkpoint_path)
        about = checkpoint[KEY]
        encoders = {name: from_plain(about[name], kind) for name, kind in zip(ENCODERS, KINDS, strict=True)}
        task = cls.from_settings(about["settings"], **encoders, facts=Facts(**about["facts"]))
        task.on_load_checkpoint(checkpoint)
        task.load_state_dict(checkpoint["state_dict"])
        return task.to(device).eval()

    def _refuse_what_is_not_finite(self, losses: Losses, batch: Batch) -> None:
        """Stop on all ranks before anything is learned from it."""
        if not any_over_ranks(not losses.loss.isfinite().item()):
            return
        bad = ~losses.finite & batch.counted
        bad = bad if bad.any() else batch.counted  # it is of none alone
        ids = {sample_id for sample_id, is_bad in zip(batch.sample_id, bad.tolist(), strict=True) if is_bad}

        def refuse(parts: list[tuple[set[str], int]]) -> None:
            names, rows = sorted(set().union(*(part[0] for part in parts))), sum(part[1] for part in parts)
            which = f"{', '.join(map(repr, names[:5]))}{', ...' * (len(names) > 5)}"
            of = f"{len(names)} of its {rows}" if len(names) < rows else f"all its {rows}"
            raise RobustTuneError(
                f"the loss of step {self.global_step} in epoch {self.current_epoch} is not finite, because of {of} "
                f"samples, {which}: lower model.optimizer.lr, or look at these samples; nothing was learned from them"
            )

        on_rank_zero((ids, int(batch.counted.sum())), refuse)

    def _evaluate(self, batch: Batch, stage: str) -> None:
        if batch.label is None:
            raise RobustTuneError("samples without labels cannot be evaluated: use predict")
        views, present = self.metrics.conditions.views, torch.stack([batch.image_present, batch.text_present], 1)
        known, unknown = self.evaluation_logits(batch, views)
        if not self._fits_temperatures():
            known = self._calibrated(known, batch, views)
            unknown = None if unknown is None else self._calibrated(unknown, batch, views)
        self.metrics.update(batch.sample_id, batch.label, present, known, unknown)

    def _calibrated(self, logits: Tensor, batch: Batch, views: Sequence[View]) -> Tensor:
        """Logits (W, B, C) divided by the temperature of what is shown."""
        present = torch.stack([batch.image_present, batch.text_present], 1)
        shown = torch.stack([patterns(present, view) for view in views])
        return logits / self.temperature[shown].unsqueeze(2)

    def _fits_temperatures(self) -> bool:
        return self.calibrate and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

    def _measure_anew(self, split: Split) -> None:
        """Take up the data's conditions, and forget what was measured before."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        conditions = data.conditions(split) if hasattr(data, "conditions") else Conditions()
        if self._fits_temperatures():
            conditions = conditions.with_views(VIEWS)
        alike = split == "test" and getattr(data, "answers", "known") == "own"
        self.metrics = ConditionMetrics(self.facts, conditions, self.class_names, alike)

    def _log_metrics(self, stage: str) -> None:
        self.log_dict({f"{stage}/{key}": value for key, value in self.metrics.compute().items()})

    def _is_frozen(self, key: str) -> bool:
        return key.startswith(tuple(f"{name}." for name in ENCODERS))

    def _encoder(self, name: str) -> FrozenEncoder:
        encoder: FrozenEncoder = getattr(self, name)
        return encoder

    def _refuse_contradictions(self, about: dict[str, Any]) -> None:
        found = differences(self._comparable(self._about), self._comparable(about))
        found += [
            f"the weights of {name} are not those it was trained with"
            for name in ENCODERS
            if self._about["sha256"][name] != about["sha256"][name] and not any(line.startswith(name) for line in found)
        ]
        if self.facts.class_names != about["facts"]["class_names"]:
            found.append("the classes are not those it was trained with, or in another order")
        if found:
            raise RobustTuneError(
                f"the checkpoint contradicts the settings ({'; '.join(found)}): "
                "use the config.yaml of its run, without contradicting flags"
            )

    def _comparable(self, about: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint says of itself, without where weights come from: a folder may move, and hashes tell."""
        encoders = {name: {**about[name], "init_args": dict(about[name]["init_args"])} for name in ENCODERS}
        for encoder in encoders.values():
            for place in ("name", "weights", "revision"):
                del encoder["init_args"][place]
        free = () if self._goes_on() else self.free_settings
        model = {name: value for name, value in about["settings"].items() if name not in free}
        return {"task": about["task"], "model": model, "inputs": plain(about["inputs"]), **encoders}

    def _goes_on(self) -> bool:
        """Whether it is trained."""
        return self._trainer is not None and self._trainer.state.fn == "fit"


def mean_over_ranks(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of (B,) values over the counted rows of all ranks, in this rank's share.

    Each rank's share is scaled so that their mean, and so DDP's mean of gradients, is that of all rows, however many
    each rank has.
    """
    total = sum_over_ranks(counted.sum()).clamp(min=1)
    return torch.where(counted, values, 0.0).sum() * world_size() / total
