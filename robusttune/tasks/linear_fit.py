"""The fit of a linear network: one pass over the training samples, then L-BFGS on their features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isnan
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from robusttune.counting import counted
from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.models.balance import Balance
from robusttune.models.linear import Fit, LinearNetwork, TrainingFeatures
from robusttune.ranks import on_rank_zero
from robusttune.types import Batch

if TYPE_CHECKING:
    from robusttune.tasks.fusion import FusionTask


def refuse_other_losses(balance: Balance, label_smoothing: float) -> None:
    """Check that no setting changes the loss, which is the log-loss of the training samples.

    Args:
        balance: Settings for imbalanced classes.
        label_smoothing: Label smoothing.

    Raises:
        RobustTuneError: One does.
    """
    if label_smoothing > 0 or balance != Balance(post_hoc=balance.post_hoc):
        raise RobustTuneError(
            "LogisticRegression minimises the log-loss of the training samples: set model.label_smoothing to 0, and of "
            "model.balance post_hoc alone"
        )


def fit_linear(task: FusionTask) -> None:
    """Fit the linear network of a task to the training samples of its Trainer. Every rank must call this.

    Rank 0 fits and sends the weights to the others. Nothing happens if the weights come from a resumed checkpoint.

    Args:
        task: Task with a `LinearNetwork`, at the start of a fit.

    Raises:
        RobustTuneError: The data are of another kind, are sampled in a balanced way, or their features are not finite.
    """
    network = cast("LinearNetwork", task.classifier.network)
    data: Any = task.trainer.datamodule  # type: ignore[attr-defined]
    if bool(network.fitted):
        return
    if not isinstance(data, ImageTextDataModule):
        raise RobustTuneError("LogisticRegression reads all training samples: give an ImageTextDataModule")
    _note_of_ignored(data, task.trainer.max_epochs)
    began = perf_counter()
    batches = (data.on_before_batch_transfer(batch, 0) for batch in data.complete_dataloader())
    own = TrainingFeatures.join([*features_of(task, network, batches)])
    collected = perf_counter()

    for each in fit_network(network, own, data.seed):
        rank_zero_info(_line(each))
    rank_zero_info(
        f"logistic regression took {collected - began:.1f} s to collect the features and "
        f"{perf_counter() - collected:.1f} s to fit"
    )


def fit_network(network: LinearNetwork, own: TrainingFeatures, seed: int) -> list[Fit]:
    """Fit a network to the training samples of all ranks. Every rank must call this.

    Args:
        network: Network to fit. Rank 0 fits and sends the weights to the others.
        own: Features of the samples of this rank.
        seed: Seed of the folds of the cross-validation.

    Returns:
        Descriptions of the regressions.

    Raises:
        RobustTuneError: Features are not finite.
    """

    def fit(parts: list[TrainingFeatures]) -> tuple[dict[str, Tensor], list[Fit]]:
        """Fit the network on rank 0, and return its weights on the CPU, and descriptions of the regressions."""
        samples = TrainingFeatures.join(parts)
        _refuse_not_finite(samples)
        fits = network.fit(samples, seed)
        return {name: value.cpu() for name, value in network.state_dict().items()}, fits

    weights, fits = on_rank_zero(own, fit)
    network.load_state_dict(weights)
    return fits


def _note_of_ignored(data: ImageTextDataModule, max_epochs: int | None) -> None:
    """Say which settings have no effect, and refuse balanced sampling.

    Raises:
        RobustTuneError: The training samples are sampled in a balanced way.
    """
    if data.training.balance is not None:
        raise RobustTuneError(
            "LogisticRegression counts each training sample once: set data.training.balance to null, or use "
            "model.balance.post_hoc"
        )
    dropout = data.training.modality_dropout
    if dropout is not None and max(dropout.image_dropout, dropout.text_dropout) > 0:
        rank_zero_info(
            "data.training.modality_dropout is ignored: there is a logistic regression for each pattern of present "
            "modalities, and all samples that can show the pattern train it"
        )
    if max_epochs != 1:
        rank_zero_warn("logistic regression is fitted before the first epoch: set trainer.max_epochs to 1")


@torch.no_grad()
def features_of(task: FusionTask, network: LinearNetwork, batches: Iterable[Batch]) -> Iterator[TrainingFeatures]:
    """Yield the features that a network reads from labelled samples, batch by batch, on the CPU.

    Args:
        task: Task with the encoders and a Trainer.
        network: Network that may differ from that of the task.
        batches: Labelled batches of this rank.
    """
    trainer = task.trainer
    for each in batches:
        batch: Batch = trainer.strategy.batch_to_device(each)
        assert batch.label is not None, "training samples have labels"
        with trainer.precision_plugin.forward_context():
            image, text = task.classifier.encode(batch)
            images, texts = network.image.features(image), network.text.features(text)
        rows = batch.counted.cpu()
        present = torch.stack([batch.image_present, batch.text_present], 1)
        ids = [sample_id for sample_id, counts in zip(batch.sample_id, rows.tolist(), strict=True) if counts]
        images, texts, present, label = (part.cpu()[rows] for part in (images, texts, present, batch.label))
        yield TrainingFeatures(images.float(), texts.float(), present, label, ids)


def _refuse_not_finite(samples: TrainingFeatures) -> None:
    """Check the features of the modalities that samples have.

    Raises:
        RobustTuneError: One is not finite. The message names the first sample.
    """
    for number, (modality, features) in enumerate({"image": samples.image, "text": samples.text}.items()):
        bad = (~features.isfinite().all(1) & samples.present[:, number]).nonzero().flatten().tolist()
        if bad:
            raise RobustTuneError(
                f"the {modality} features of {counted(len(bad), 'training sample')} are not finite, the first is "
                f"{samples.sample_id[bad[0]]!r}: check it, and the encoders' precision"
            )


def _line(fit: Fit) -> str:
    """Describe a regression in one line."""
    loss = "" if isnan(fit.loss) else f", log-loss {fit.loss:.3f} in cross-validation"
    patterns = {"both": "image and text", "image": "the image alone", "text": "the text alone"}
    return (
        f"logistic regression on {patterns[fit.pattern]}: {counted(fit.rows, 'sample')}, "
        f"{counted(fit.features, 'feature')}, C {fit.c:.3g}{loss}"
    )
