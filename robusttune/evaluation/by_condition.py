"""Metrics kept apart by condition."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robusttune.corruption.conditions import Conditions
from robusttune.errors import RobustTuneError
from robusttune.evaluation.intervals import base_and_new_parts, between, multiclass_parts, multilabel_parts, resampled
from robusttune.evaluation.metrics import (
    base_and_new_metrics,
    headline,
    multiclass_metrics,
    multilabel_metrics,
    names_of_metrics,
)
from robusttune.evaluation.scores import Scores, by_id, join
from robusttune.ranks import on_rank_zero
from robusttune.types import Facts


class ConditionMetrics:
    """One set of metrics a condition, over all samples of all ranks.

    Samples are gathered by their ids: each counts once however often it was seen, and in an order of their own, so that
    nothing depends on the number of processes, workers or samples a batch. What a model says is kept by view:
    conditions that only show other samples in the same views cost nothing.

    The metrics are those of `multiclass_metrics` or `multilabel_metrics`; where some classes are of training (base) and
    some are not (new), those of `base_and_new_metrics`.

    Args:
        facts: of the training data.
        conditions: that are evaluated.
        class_names: of the classes that are told apart, in the order of logits; those of the facts by default.
        alike: measure classes that training knows and others together.
    """

    def __init__(
        self, facts: Facts, conditions: Conditions, class_names: list[str] | None = None, alike: bool = False
    ) -> None:
        self.class_names = facts.class_names if class_names is None else class_names
        self.conditions = conditions
        self.multilabel = facts.multilabel
        trained = {*facts.class_names}
        self.base = torch.tensor([alike or name in trained for name in self.class_names])
        self.scores: list[Scores] = []
        # From `compute` on, what it returned, and, on rank 0, what it was computed from.
        self.values: dict[str, float] = {}
        self.gathered: Scores | None = None

    @property
    def mixed(self) -> bool:
        """Whether some classes are of training, and some are not."""
        return bool(self.base.any()) and not bool(self.base.all())

    @property
    def headline(self) -> str:
        """The metric that is named where there is room for one."""
        return headline(self.multilabel, self.mixed)

    @property
    def names(self) -> list[str]:
        """The keys of `compute`."""
        metrics = names_of_metrics(self.multilabel, len(self.class_names), self.mixed)
        return [f"{condition}/{name}" for condition in [*self.conditions.names, "mean"] for name in metrics]

    def update(
        self, sample_id: list[str], label: Tensor, present: Tensor, logits: Tensor, unknown: Tensor | None = None
    ) -> None:
        """Add samples.

        Args:
            sample_id: B strings.
            label: (B,) int64, or (B, C) in multi-label data.
            present: (B, 2) bool, whether they have an image, and a text.
            logits: (W, B, C) of each of the conditions' views.
            unknown: likewise, see `Scores`; the same by default.
        """
        known = logits.float().cpu()
        others = known if unknown is None else unknown.float().cpu()
        self.scores.append(Scores(sample_id, label.cpu(), present.cpu(), known, others))

    def compute(self) -> dict[str, float]:
        """``<condition>/<metric>`` for every condition, and ``mean/<metric>``, the mean over the conditions.

        Raises:
            RobustTuneError: a logit is not finite.
        """
        mine = join(self.scores) if self.scores else None
        self.scores = [] if mine is None else [mine]  # all logits twice are too many

        def measured(parts: list[Scores | None]) -> dict[str, float]:
            self.gathered = by_id([part for part in parts if part is not None])
            return self._of(self.gathered)

        self.values = on_rank_zero(mine, measured)
        return self.values

    def under_conditions(self, scores: Scores) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Condition by condition its name, and (N, C) logits and logits ``unknown`` of what is seen of each sample."""
        seen, rows = torch.from_numpy(self.conditions.seen(scores.sample_id)), torch.arange(len(scores.sample_id))
        for name, views in zip(self.conditions.names, seen, strict=True):
            yield name, scores.logits[views, rows], scores.unknown[views, rows]

    def intervals(self, scores: Scores) -> dict[str, dict[str, tuple[float, float]]]:
        """By condition and metric, the 95 % interval over samples, of metrics that follow from means over them.

        And of the mean over the conditions, of which the resamples are of the same samples.
        """
        found, total = {}, dict[str, Tensor]()
        for condition, logits, unknown in self.under_conditions(scores):
            if self.mixed:
                parts = base_and_new_parts(logits, scores.label, self.base, unknown)
            else:
                parts = (multilabel_parts if self.multilabel else multiclass_parts)(logits, scores.label)
            values = resampled(parts)
            found[condition] = between(values)
            total = {name: of + total.get(name, 0) for name, of in values.items()}
        return found | {"mean": between({name: of / len(found) for name, of in total.items()})}

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
            condition: self._measure(logits, scores.label, unknown)
            for condition, logits, unknown in self.under_conditions(scores)
        }
        metrics = names_of_metrics(self.multilabel, len(self.class_names), self.mixed)
        found["mean"] = {name: sum(values[name] for values in found.values()) / len(found) for name in metrics}
        return {f"{condition}/{name}": values[name] for condition, values in found.items() for name in metrics}

    def _measure(self, logits: Tensor, label: Tensor, unknown: Tensor) -> dict[str, float]:
        if self.mixed:
            return base_and_new_metrics(logits, label, self.base, unknown)
        return (multilabel_metrics if self.multilabel else multiclass_metrics)(logits, label)
