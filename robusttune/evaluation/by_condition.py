"""Metrics per condition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from robusttune.corruption.conditions import Conditions
from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.evaluation.intervals import (
    base_and_new_parts,
    bootstrap_metrics,
    confidence_intervals,
    multiclass_parts,
    multilabel_parts,
)
from robusttune.evaluation.metric_names import headline, names_of_metrics
from robusttune.evaluation.metrics import base_and_new_metrics, multiclass_metrics, multilabel_metrics
from robusttune.evaluation.scores import Scores, by_id, join
from robusttune.ranks import on_rank_zero
from robusttune.types import Facts


class Shown(NamedTuple):
    """The logits of ``N`` samples as a condition shows them.

    Attributes:
        condition: Name of the condition.
        logits: Class scores, shape (N, C).
        unknown: Class scores of a model without knowledge of base and new classes, shape (N, C), see `Scores`.
        cuts: Logits from which classes are predicted in multi-label data, shape (N, C), or () with 0 for all.
    """

    condition: str
    logits: Tensor
    unknown: Tensor
    cuts: Tensor


class ConditionMetrics:
    """A collector of predictions that computes one set of metrics per condition, over all samples of all ranks.

    Samples are identified by their ids: each one counts once, even if it was added several times, and they are sorted
    by id. So the result does not depend on the number of processes, loader workers or samples per batch. Logits are
    stored per view. A condition that shows views of other conditions, for different samples, needs no further logits.

    The metrics are those of `multiclass_metrics` or `multilabel_metrics`. If some classes were trained on (base) and
    others were not (new), they are those of `base_and_new_metrics`.

    Args:
        facts: Facts of the training data.
        conditions: Conditions that are evaluated.
        class_names: Names of the evaluated classes, in the order of the logits; None for the classes of ``facts``.
        alike: True to evaluate base and new classes together, as if all were base classes.
        cuts: Logits from which classes are predicted in multi-label data, shape (4, C), see `Thresholds.cuts`; None for
            0, a probability of 0.5.

    Attributes:
        base: Mask of the base classes, shape (C,), bool.
        values: Metrics that `compute` returned last.
        gathered: Scores of all ranks that `compute` has used, on rank 0; None before, and on other ranks.

    Example:
        >>> from robusttune.corruption.conditions import Conditions
        >>> from robusttune.types import Facts
        >>> facts = Facts(["cat", "dog"], [0.5, 0.5], multilabel=False)
        >>> ConditionMetrics(facts, Conditions(["complete", "no_image"])).names[0]
        'complete/accuracy'
    """

    def __init__(
        self,
        facts: Facts,
        conditions: Conditions,
        class_names: list[str] | None = None,
        alike: bool = False,
        cuts: Tensor | None = None,
    ) -> None:
        self.class_names = facts.class_names if class_names is None else class_names
        self.conditions = conditions
        self.multilabel = facts.multilabel
        trained = {*facts.class_names}
        self.base = torch.tensor([alike or name in trained for name in self.class_names])
        self.scores: list[Scores] = []
        self.values: dict[str, float] = {}
        self.gathered: Scores | None = None
        self.cuts = cuts
        self._is_gathered = False

    @property
    def mixed(self) -> bool:
        """Return True if some of the classes were trained on and others were not."""
        return bool(self.base.any()) and not bool(self.base.all())

    @property
    def headline(self) -> str:
        """Return the name of the main metric."""
        return headline(self.multilabel, self.mixed)

    @property
    def names(self) -> list[str]:
        """Return the keys of the result of `compute`."""
        metrics = names_of_metrics(self.multilabel, len(self.class_names), self.mixed)
        return [f"{condition}/{name}" for condition in [*self.conditions.names, "mean"] for name in metrics]

    def update(
        self, sample_id: list[str], label: Tensor, present: Tensor, logits: Tensor, unknown: Tensor | None = None
    ) -> None:
        """Add the predictions of ``B`` samples.

        Args:
            sample_id: Ids of the samples.
            label: Class indices, shape (B,), int64, or 0/1 per class, shape (B, C), in multi-label data.
            present: Flags that the sample has an image and that it has a text, shape (B, 2), bool.
            logits: Class scores in each of the conditions' views, shape (W, B, C).
            unknown: Class scores of a model without knowledge of base and new classes, shape (W, B, C), see `Scores`;
                None if they equal ``logits``.
        """
        known = logits.float().cpu()
        others = known if unknown is None else unknown.float().cpu()
        self.scores.append(Scores(sample_id, label.cpu(), present.cpu(), known, others))
        self._is_gathered = False

    def compute(self) -> dict[str, float]:
        """Compute the metrics over all samples of all ranks.

        Returns:
            Metrics by ``<condition>/<metric>``, and ``mean/<metric>``, the mean over the conditions.

        Raises:
            RobustTuneError: A logit is not finite.
        """
        self.gather()

        def measured(_: list[None]) -> dict[str, float]:
            """Compute the metrics on rank 0, which alone has the scores of all ranks."""
            assert self.gathered is not None
            return self._all_metrics(self.gathered)

        self.values = on_rank_zero(None, measured)
        return self.values

    def gather(self) -> None:
        """Gather the scores of all ranks on rank 0, unless it has them. Every rank must call this."""
        if self._is_gathered:
            return
        own_scores = join(self.scores) if self.scores else None
        # Keep only the joined scores: two copies of all logits would need too much memory.
        self.scores = [] if own_scores is None else [own_scores]

        def joined(parts: list[Scores | None]) -> None:
            """Join the scores of all ranks."""
            self.gathered = by_id([part for part in parts if part is not None])

        on_rank_zero(own_scores, joined)
        self._is_gathered = True

    def under_conditions(self, scores: Scores) -> Iterator[Shown]:
        """Yield the logits of each condition, each sample in the view that the condition shows."""
        rows = torch.arange(len(scores.sample_id))
        view_indices = torch.from_numpy(self.conditions.view_indices(scores.sample_id))
        patterns = torch.stack([view.patterns(scores.present) for view in self.conditions.views])
        for name, views in zip(self.conditions.names, view_indices, strict=True):
            cuts = torch.zeros(()) if self.cuts is None else self.cuts.cpu()[patterns[views, rows]]
            yield Shown(name, scores.logits[views, rows], scores.unknown[views, rows], cuts)

    def intervals(self, scores: Scores) -> dict[str, dict[str, tuple[float, float]]]:
        """Bootstrap 95 % confidence intervals of the metrics of each condition, and of their mean over the conditions.

        All conditions share their resamples. Metrics that do not follow from means over samples (AUROC, average
        precision, calibration error) have no interval.

        Args:
            scores: Predictions of all samples.

        Returns:
            Lower and upper end, by condition (or ``mean``) and metric.
        """
        found, total = {}, dict[str, Tensor]()
        for condition, logits, unknown, cuts in self.under_conditions(scores):
            if self.mixed:
                parts = base_and_new_parts(logits, scores.label, self.base, unknown)
            elif self.multilabel:
                parts = multilabel_parts(logits, scores.label, cuts)
            else:
                parts = multiclass_parts(logits, scores.label)
            values = bootstrap_metrics(parts)
            found[condition] = confidence_intervals(values)
            total = {name: value + total.get(name, 0) for name, value in values.items()}
        return found | {"mean": confidence_intervals({name: value / len(found) for name, value in total.items()})}

    def _all_metrics(self, scores: Scores) -> dict[str, float]:
        """Compute the metrics of all conditions, in the form that `compute` returns."""
        bad = (~scores.logits.isfinite()).any(2).any(0).nonzero().flatten().tolist()
        if len(bad) == len(scores.sample_id):
            raise RobustTuneError("no prediction is finite, so the weights have diverged: lower model.optimizer.lr")
        if bad:
            raise RobustTuneError(
                f"the predictions for {len(bad)} of {counted(len(scores.sample_id), 'sample')} are not finite, the "
                f"first is {scores.sample_id[bad[0]]!r}: check it, and the encoders' precision"
            )
        found = {shown.condition: self._measure(shown, scores.label) for shown in self.under_conditions(scores)}
        metrics = names_of_metrics(self.multilabel, len(self.class_names), self.mixed)
        found["mean"] = {name: sum(values[name] for values in found.values()) / len(found) for name in metrics}
        return {f"{condition}/{name}": values[name] for condition, values in found.items() for name in metrics}

    def _measure(self, shown: Shown, label: Tensor) -> dict[str, float]:
        """Compute the metrics of one condition."""
        if self.mixed:
            return base_and_new_metrics(shown.logits, label, self.base, shown.unknown)
        if self.multilabel:
            return multilabel_metrics(shown.logits, label, shown.cuts)
        return multiclass_metrics(shown.logits, label)
