"""The fit of a network to all training features at once: one pass over the samples, then the fit on rank 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from robusttune.counting import counted
from robusttune.data import ImageTextDataModule
from robusttune.errors import RobustTuneError
from robusttune.models.balance import Balance
from robusttune.models.fitted import Choice, FittedNetwork, Outcome, TrainingFeatures
from robusttune.models.temperatures import VIEWS, Blocks, blocks_of
from robusttune.ranks import on_rank_zero
from robusttune.tasks.fit_notes import notes_before_fit
from robusttune.tasks.fitted_on_validation import Fitted
from robusttune.types import Batch, Sample

if TYPE_CHECKING:
    from robusttune.tasks.fusion import FusionTask


def refuse_other_losses(name: str, balance: Balance, label_smoothing: float) -> None:
    """Check that no setting changes the loss, which is the log-loss of the training samples.

    Args:
        name: Name of the fusion model.
        balance: Settings for imbalanced classes.
        label_smoothing: Label smoothing.

    Raises:
        RobustTuneError: One does.
    """
    if label_smoothing > 0 or balance != Balance(post_hoc=balance.post_hoc):
        raise RobustTuneError(
            f"{name} minimises the log-loss of the training samples: set model.label_smoothing to 0, and of "
            "model.balance post_hoc alone"
        )


def fit_at_once(task: FusionTask) -> None:
    """Fit the network of a task to the training samples of its Trainer. Every rank must call this.

    Rank 0 fits and sends the weights to the others. Temperatures and thresholds are fitted to held-out samples of the
    cross-validation. Nothing happens if the weights come from a resumed checkpoint.

    Args:
        task: Task with a `FittedNetwork`, at the start of a fit.

    Raises:
        RobustTuneError: The data are of another kind, are sampled in a balanced way, or their features are not finite.
    """
    data: Any = task.trainer.datamodule  # type: ignore[attr-defined]
    if bool(_network(task).fitted):
        return
    if not isinstance(data, ImageTextDataModule):
        raise RobustTuneError(f"{_name(task)} reads all training samples: give an ImageTextDataModule")
    for note in notes_before_fit(task):
        rank_zero_info(note)
    _note_of_ignored(task, data)
    task.choices = _fit(task, data, [data.complete_dataloader()])


def refit_with_held_out(task: FusionTask) -> None:
    """Fit the network again, to the samples that were held out for validation, too. Every rank must call this.

    The validation before judged a fit without them. Nothing happens if the source has a validation split of its own, if
    the number of training samples is a setting (``data.splits.shots``), or if more validations follow.

    Args:
        task: Task with a `FittedNetwork`, at the end of a validation.
    """
    data: Any = task.trainer.datamodule  # type: ignore[attr-defined]
    trainer = task.trainer
    if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.max_epochs != 1 or not trainer.is_last_batch:
        return
    held_out = data.held_out_dataloader()
    if held_out is not None:
        rank_zero_info("the samples that were held out for validation now join those of training:")
        _fit(task, data, [data.complete_dataloader(), held_out])


def _fit(task: FusionTask, data: ImageTextDataModule, loaders: Sequence[DataLoader[Sample]]) -> list[Choice | None]:
    """Collect the features of the samples of some loaders, fit the network to them, and log what was fitted.

    Returns:
        Choices of the cross-validation. An earlier fit of this task has made them, if there was one.
    """
    network, began = _network(task), perf_counter()
    batches = (data.on_before_batch_transfer(batch, 0) for loader in loaders for batch in loader)
    own = TrainingFeatures.join([*features_of(task, network, batches)])
    collected = perf_counter()
    outcome, fitted = fit_network(network, own, data.seed, task.validation_fit.fitted, task.choices)
    fitted.keep(task.classifier)
    for line in outcome.lines:
        rank_zero_info(line)
    rank_zero_info(
        f"it took {collected - began:.1f} s to collect the features and {perf_counter() - collected:.1f} s to fit"
    )
    return outcome.choices


def fit_network(
    network: FittedNetwork,
    own: TrainingFeatures,
    seed: int,
    calibrate: Callable[[Blocks], Fitted],
    choices: Sequence[Choice | None] | None = None,
) -> tuple[Outcome, Fitted]:
    """Fit a network to the training samples of all ranks. Every rank must call this.

    Args:
        network: Network to fit. Rank 0 fits and sends the weights to the others.
        own: Features of the samples of this rank.
        seed: Seed of the folds of the cross-validation.
        calibrate: Function that fits temperatures and thresholds to held-out logits and labels, see `fit_to_scores`.
        choices: Choices of an earlier fit.

    Returns:
        Outcome, without its held-out logits, and what ``calibrate`` has returned.

    Raises:
        RobustTuneError: Features are not finite.
    """

    def fit(parts: list[TrainingFeatures]) -> tuple[dict[str, Tensor], Outcome, Fitted]:
        """Fit on rank 0, and return the weights on the CPU with the results."""
        samples = TrainingFeatures.join(parts)
        _refuse_not_finite(samples)
        outcome, fitted = network.fit(samples, seed, choices), Fitted(None, None)
        if outcome.held_out is not None:
            fitted = calibrate(blocks_of(outcome.held_out, samples.label.cpu(), samples.present.cpu(), VIEWS))
        weights = {name: value.cpu() for name, value in network.state_dict().items()}
        return weights, outcome._replace(held_out=None), fitted

    weights, outcome, fitted = on_rank_zero(own, fit)
    network.load_state_dict(weights)
    return outcome, fitted


def _network(task: FusionTask) -> FittedNetwork:
    return cast("FittedNetwork", task.classifier.network)


def _name(task: FusionTask) -> str:
    return type(task.classifier.fusion).__name__


def _note_of_ignored(task: FusionTask, data: ImageTextDataModule) -> None:
    """Say which settings have no effect, and refuse balanced sampling.

    Raises:
        RobustTuneError: The training samples are sampled in a balanced way.
    """
    if data.training.balance is not None:
        raise RobustTuneError(
            f"{_name(task)} counts each training sample once: set data.training.balance to null, or use "
            "model.balance.post_hoc"
        )
    dropout = data.training.modality_dropout
    if dropout is not None and dropout.is_active:
        rank_zero_info(
            "data.training.modality_dropout is ignored: there is a regression for each pattern of present modalities, "
            "and all samples that can show the pattern train it"
        )
    if task.trainer.max_epochs != 1:
        rank_zero_warn(f"{_name(task)} is fitted before the first epoch: set trainer.max_epochs to 1")


@torch.no_grad()
def features_of(task: FusionTask, network: FittedNetwork, batches: Iterable[Batch]) -> Iterator[TrainingFeatures]:
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
            images, texts = network.features(*task.classifier.encode(batch))
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
