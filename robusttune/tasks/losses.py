"""The losses of a training step, their mean over all ranks, and the check that they are finite."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.ranks import any_over_ranks, on_rank_zero, sum_over_ranks, world_size
from robusttune.types import Batch


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


def mean_over_ranks(values: Tensor, counted: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return this rank's part of the (weighted) mean over the counted rows of all ranks.

    DDP averages gradients over ranks. The parts are scaled so that their average over the ranks is the mean over all
    counted rows, even if the ranks have different numbers of them.

    Args:
        values: One value a row, shape (B,), already multiplied by its weight.
        counted: Rows to average over, shape (B,), bool.
        weights: Weights of the rows, shape (B,), positive; None for equal weights. The mean is the sum of the values
            divided by the sum of the weights.

    Returns:
        Scalar tensor, shape ().

    Example:
        >>> mean_over_ranks(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))  # one process
        tensor(2.)
    """
    if weights is None:
        total = sum_over_ranks(counted.sum()).clamp(min=1)
    else:
        total = sum_over_ranks(torch.where(counted, weights, 0.0).sum())
        total = torch.where(total > 0, total, 1.0)
    return torch.where(counted, values, 0.0).sum() * world_size() / total


class FiniteCheck:
    """A check that the loss of a training step is finite on all ranks.

    It is split in two: the constructor, after the forward pass, and `finish`, after the backward pass has started and
    before the optimiser's step. A GPU copies the result of the forward pass to the host while it runs the backward
    pass, so it always has work.

    Args:
        losses: Losses of this rank.
        batch: Batch that they were computed from.
        step: Number of the training step, for the message.
        epoch: Number of the epoch, for the message.

    Example:
        >>> from robusttune.types import Variants
        >>> one, none = torch.ones(1, dtype=torch.bool), Variants(["clean"], torch.zeros(0))
        >>> batch = Batch(none, none, one, one, None, one, ["a"], "train", [], [])
        >>> FiniteCheck(Losses(torch.tensor(0.5), {}, one), batch, step=0, epoch=0).finish()
    """

    def __init__(self, losses: Losses, batch: Batch, step: int, epoch: int) -> None:
        self.batch = batch
        self.step = step
        self.epoch = epoch
        self._samples_finite = losses.finite
        self._loss_finite = losses.loss.detach().isfinite()
        self._copied: torch.cuda.Event | None = None
        if self._loss_finite.is_cuda:
            self._loss_finite = self._loss_finite.to("cpu", non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def finish(self) -> None:
        """Wait for the result of the forward pass, and raise an error if it is not finite. Every rank must call this.

        Raises:
            RobustTuneError: The loss of a rank is not finite. All ranks raise it, and the message names the samples of
                all ranks.
        """
        if self._copied is not None:
            self._copied.synchronize()
        if not any_over_ranks(not self._loss_finite.item()):
            return
        counted = self.batch.counted
        bad = ~self._samples_finite & counted
        bad = bad if bad.any() else counted  # No single sample is to blame.
        ids = {sample_id for sample_id, is_bad in zip(self.batch.sample_id, bad.tolist(), strict=True) if is_bad}
        on_rank_zero((ids, int(counted.sum())), self._refuse)

    def _refuse(self, parts: list[tuple[set[str], int]]) -> None:
        """Raise the error, with the bad samples and the number of samples of each rank."""
        names, rows = sorted(set().union(*(part[0] for part in parts))), sum(part[1] for part in parts)
        listed = f"{', '.join(map(repr, names[:5]))}{', ...' * (len(names) > 5)}"
        share = f"{len(names)} of its {rows}" if len(names) < rows else f"all its {rows}"
        raise RobustTuneError(
            f"the loss of step {self.step} in epoch {self.epoch} is not finite, because of {share} "
            f"samples, {listed}: lower model.optimizer.lr, or look at these samples; nothing was learned from them"
        )
