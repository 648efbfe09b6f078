"""Metrics kept apart by condition."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multilabel_average_precision,
    multilabel_f1_score,
)

from robusttune.errors import RobustTuneError
from robusttune.ranks import on_rank_zero
from robusttune.types import CONDITIONS, Facts


class Scores(NamedTuple):
    """What was found for ``N`` samples under ``K`` conditions.

    Attributes:
        sample_id: N strings.
        label: (N,) int64 class indices, or (N, C) float 0/1 in multi-label data.
        logits: (K, N, C) float32.
        unknown: (K, N, C) float32, where some classes are of training and some are not: the logits of a model that is
            not told of which kind a sample is. Else the same as ``logits``.
    """

    sample_id: list[str]
    label: Tensor
    logits: Tensor
    unknown: Tensor


class ConditionMetrics:
    """One set of metrics a condition, over all samples of all ranks.

    Samples are gathered by their ids: each counts once however often it was seen, and in an order of their own, so that
    nothing depends on the number of processes, workers or samples a batch.

    Multi-class: ``accuracy`` and ``f1_macro``. Multi-label: ``f1_macro``, ``f1_micro`` (threshold 0.5) and
    ``average_precision`` (macro). Both: ``loss``, the mean cross-entropy. All but the loss are in [0, 1].

    Where some classes are those of training (base) and some are not (new), see `base_and_new_metrics`.

    Args:
        facts: of the training data.
        class_names: of the classes that are told apart, in the order of logits; those of the facts by default.
        alike: measure classes that training knows and others together.
    """

    def __init__(self, facts: Facts, class_names: list[str] | None = None, alike: bool = False) -> None:
        names = facts.class_names if class_names is None else class_names
        self.multilabel = facts.multilabel
        self.base = torch.tensor([alike or name in {*facts.class_names} for name in names])
        self.scores: list[Scores] = []
        self.gathered: Scores | None = None  # of all ranks, on rank 0, from `compute` on

    @property
    def names(self) -> list[str]:
        """The keys of `compute`."""
        multiclass, multilabel = ["accuracy", "f1_macro"], ["f1_macro", "f1_micro", "average_precision"]
        metrics = [*(multilabel if self.multilabel else multiclass), "loss"]
        if self.mixed:
            metrics = ["base_accuracy", "new_accuracy", "harmonic_mean", "unknown_accuracy"]
        return [f"{condition}/{name}" for condition in [*(c.name for c in CONDITIONS), "mean"] for name in metrics]

    def update(
        self, sample_id: list[str], label: Tensor, logits: dict[str, Tensor], unknown: dict[str, Tensor] | None = None
    ) -> None:
        """Add samples.

        Args:
            sample_id: B strings.
            label: (B,) int64, or (B, C) in multi-label data.
            logits: (B, C) under each condition, by name.
            unknown: likewise, see `Scores`; the same by default.
        """
        known = _stack(logits)
        self.scores.append(Scores(sample_id, label.cpu(), known, known if unknown is None else _stack(unknown)))

    def compute(self) -> dict[str, float]:
        """``<condition>/<metric>`` for every condition, and ``mean/<metric>``, the mean over the conditions.

        Raises:
            RobustTuneError: a logit is not finite.
        """
        mine = _join(self.scores) if self.scores else None

        def measured(parts: list[Scores | None]) -> dict[str, float]:
            self.gathered = _by_id([part for part in parts if part is not None])
            return self._of(self.gathered)

        return on_rank_zero(mine, measured)

    def reset(self) -> None:
        self.scores, self.gathered = [], None

    def _of(self, scores: Scores) -> dict[str, float]:
        bad = (~scores.logits.isfinite()).any(2).any(0).nonzero().flatten().tolist()
        if len(bad) == len(scores.sample_id):
            raise RobustTuneError("no answer is finite, so the weights have diverged: lower model.optimizer.lr")
        if bad:
            raise RobustTuneError(
                f"the answers for {len(bad)} of {len(scores.sample_id)} samples are not finite, the first is "
                f"{scores.sample_id[bad[0]]!r}: look at it, and at the encoders' precision"
            )
        found = {
            condition.name: self._measure(logits, scores.label, unknown)
            for condition, logits, unknown in zip(CONDITIONS, scores.logits, scores.unknown, strict=True)
        }
        first = next(iter(found.values()))
        found["mean"] = {name: sum(values[name] for values in found.values()) / len(found) for name in first}
        return {f"{condition}/{name}": value for condition, values in found.items() for name, value in values.items()}

    @property
    def mixed(self) -> bool:
        """Whether some classes are of training, and some are not."""
        return bool(self.base.any()) and not bool(self.base.all())

    def _measure(self, logits: Tensor, label: Tensor, unknown: Tensor) -> dict[str, float]:
        if self.mixed:
            return base_and_new_metrics(logits, label, self.base, unknown)
        return (multilabel_metrics if self.multilabel else multiclass_metrics)(logits, label)


def sample_losses(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of each sample, (B,): categorical, or binary averaged over the classes in multi-label data."""
    if label.dim() == 1:
        return functional.cross_entropy(logits, label, reduction="none")
    return functional.binary_cross_entropy_with_logits(logits, label, reduction="none").mean(1)


def multiclass_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """Of logits (N, C) and labels (N,)."""
    classes = logits.shape[1]
    return {
        "accuracy": float(multiclass_accuracy(logits, label, classes, average="micro")),
        "f1_macro": float(multiclass_f1_score(logits, label, classes, average="macro")),
        "loss": _mean_loss(logits, label),
    }


def multilabel_metrics(logits: Tensor, label: Tensor) -> dict[str, float]:
    """Of logits (N, C) and labels (N, C)."""
    classes, shares, hot = logits.shape[1], logits.sigmoid(), label.long()
    return {
        "f1_macro": float(multilabel_f1_score(shares, hot, classes, average="macro")),
        "f1_micro": float(multilabel_f1_score(shares, hot, classes, average="micro")),
        "average_precision": float(multilabel_average_precision(shares, hot, classes, average="macro")),
        "loss": _mean_loss(logits, label),
    }


def base_and_new_metrics(logits: Tensor, label: Tensor, base: Tensor, unknown: Tensor) -> dict[str, float]:
    """Base-to-new generalisation (CoCoOp, arXiv 2203.05557).

    Args:
        logits: (N, C).
        label: (N,).
        base: (C,) bool, True for classes of training.
        unknown: (N, C), see `Scores`.

    Returns:
        ``base_accuracy`` of the samples of base classes, told apart from base classes only; ``new_accuracy`` likewise;
        their ``harmonic_mean``; and ``unknown_accuracy`` of all samples among all classes, by the logits ``unknown``.
        Not a number where there is no sample to measure it by.
    """
    found = {}
    for name, group in (("base_accuracy", base), ("new_accuracy", ~base)):
        of_group = group[label]
        answers = logits[of_group].masked_fill(~group, -torch.inf).argmax(1)
        found[name] = float((answers == label[of_group]).double().mean())
    both = [*found.values()]
    found["harmonic_mean"] = 2 * both[0] * both[1] / sum(both) if sum(both) != 0 else 0.0
    found["unknown_accuracy"] = float((unknown.argmax(1) == label).double().mean())
    return found


def _mean_loss(logits: Tensor, label: Tensor) -> float:
    return float(sample_losses(logits, label).double().mean())


def _stack(logits: dict[str, Tensor]) -> Tensor:
    return torch.stack([logits[condition.name] for condition in CONDITIONS]).float().cpu()


def _join(parts: list[Scores]) -> Scores:
    ids, label, logits, unknown = zip(*parts, strict=True)
    joined = torch.cat(logits, 1)
    same = all(a is b for a, b in zip(logits, unknown, strict=True))
    return Scores(
        [sample_id for some in ids for sample_id in some],
        torch.cat(label),
        joined,
        joined if same else torch.cat(unknown, 1),
    )


def _by_id(parts: list[Scores]) -> Scores:
    """Each sample once, in the order of the ids."""
    scores = _join(parts)
    row = {sample_id: i for i, sample_id in enumerate(scores.sample_id)}
    ids = sorted(row)
    rows = torch.tensor([row[sample_id] for sample_id in ids])
    logits = scores.logits[:, rows]
    unknown = logits if scores.unknown is scores.logits else scores.unknown[:, rows]
    return Scores(ids, scores.label[rows], logits, unknown)
