"""Metrics per condition."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from robusttune.corruption.conditions import Conditions
from robusttune.counting import counted
from robusttune.errors import RobustTuneError
from robusttune.evaluation.bootstrap import id_hashes
from robusttune.evaluation.classes import Classes, Shown
from robusttune.evaluation.intervals import bootstrapped, confidence_intervals
from robusttune.evaluation.metric_names import headline, names_of_metrics
from robusttune.evaluation.metrics import Measured, measure
from robusttune.evaluation.own_samples import OwnSamples, own_samples
from robusttune.evaluation.score_store import Block, ScoreStore
from robusttune.evaluation.scores import Scores
from robusttune.ranks import gather, on_rank_zero
from robusttune.types import Facts, View


class ConditionMetrics:
    """A collector of predictions that computes one set of metrics per condition, over all samples of all ranks.

    Samples are identified by their ids: each one counts once, even if it was added several times. Each rank keeps the
    logits of its own samples, and adds up what metrics, intervals and fits need of them. Only such sums are sent. They
    do not depend on the number of processes, loader workers or samples per batch. Logits are stored per view. A
    condition that shows views of other conditions, for different samples, needs no further logits.

    The metrics are those of `measure`.

    Args:
        facts: Facts of the training data.
        conditions: Conditions that are evaluated.
        class_names: Names of the evaluated classes, in the order of the logits; None for the classes of ``facts``.
        alike: True to evaluate base and new classes together, as if all were base classes.
        cuts: Logits from which classes are predicted in multi-label data, shape (4, C), see `Thresholds.cuts`; None for
            0, a probability of 0.5.

    Attributes:
        classes: Evaluated classes.
        values: Metrics that `compute` returned last.
        measured: Results of `compute` by condition: metrics, sums over all ranks, and the outcomes of this rank's
            samples.

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
        names = facts.class_names if class_names is None else class_names
        trained = {*facts.class_names}
        self.classes = Classes(names, torch.tensor([alike or name in trained for name in names]), facts.multilabel)
        self.conditions = conditions
        self.cuts = cuts
        self.values: dict[str, float] = {}
        self.measured: dict[str, Measured] = {}
        self._store = ScoreStore(self.classes)
        self._own: OwnSamples | None = None

    @property
    def headline(self) -> str:
        """Return the name of the main metric."""
        return headline(self.classes.multilabel, self.classes.mixed)

    @property
    def names(self) -> list[str]:
        """Return the keys of the result of `compute`."""
        return [f"{condition}/{name}" for condition in [*self.conditions.names, "mean"] for name in self._metrics]

    @property
    def own(self) -> OwnSamples:
        """Return the samples that this rank counts. All ranks must access this first after the last `update`."""
        if self._own is None:
            self._own = own_samples(self._store, self.conditions)
        return self._own

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

        Raises:
            RobustTuneError: There is no room for the logits.
        """
        known = logits.float().cpu()
        others = known if unknown is None else unknown.float().cpu()
        self._store.add(Scores(sample_id, label.cpu(), present.cpu(), known, others))
        self._own = None

    def compute(self) -> dict[str, float]:
        """Compute the metrics over all samples of all ranks. Every rank must call this.

        Returns:
            Metrics by ``<condition>/<metric>``, and ``mean/<metric>``, the mean over the conditions.

        Raises:
            RobustTuneError: A logit is not finite.
        """
        self._refuse_not_finite()
        self.measured = {
            name: measure(lambda number=number: self.blocks(number), self.classes)  # type: ignore[misc]
            for number, name in enumerate(self.conditions.names)
        }
        found = {name: measured.metrics for name, measured in self.measured.items()}
        found["mean"] = {m: sum(values[m] for values in found.values()) / len(found) for m in self._metrics}
        self.values = {f"{name}/{metric}": values[metric] for name, values in found.items() for metric in self._metrics}
        return self.values

    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Bootstrap 95 % intervals of the metrics of each condition, and of their mean over the conditions.

        Every rank must call this after `compute`. All conditions share their resamples. Metrics that do not follow
        from sums over samples (AUROC, average precision, calibration error) have no interval.

        Returns:
            Lower and upper end, by condition (or ``mean``) and metric.
        """
        outcomes = {name: measured.outcomes for name, measured in self.measured.items()}
        values = bootstrapped(outcomes, self.own.label, id_hashes(self.own.sample_id), self.classes)
        metrics = next(iter(values.values()))
        means = {metric: torch.stack([row[metric] for row in values.values()]).mean(0) for metric in metrics}
        return {name: confidence_intervals(row) for name, row in {**values, "mean": means}.items()}

    def blocks(self, condition: int) -> Iterator[Shown]:
        """Yield this rank's samples as a condition shows them, block by block, at least one block.

        Args:
            condition: Number of the condition.
        """
        for block, samples, rows in self._blocks_of_own():
            yield self._shown(block, samples, rows, self.own.views[condition, samples])

    def blocks_of_view(self, view: View, pattern: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield logits (n, C) and labels of this rank's samples that show a pattern of modalities, block by block.

        Args:
            view: View of the samples, one of the conditions' views.
            pattern: Number of the pattern of present modalities that a sample must show in this view.
        """
        number, patterns = self.conditions.views.index(view), view.patterns(self.own.present)
        for block, samples, rows in self._blocks_of_own():
            chosen = patterns[samples] == pattern
            shown = self._shown(block, samples, rows, torch.full_like(rows, number))
            yield shown.logits[chosen], shown.label[chosen]

    def picked(self, ids: Sequence[str], conditions: int) -> list[dict[str, Shown]]:
        """Return some samples as the first conditions show them. Every rank must call this.

        Args:
            ids: Ids of evaluated samples.
            conditions: Number of conditions.

        Returns:
            One sample each by id, for each condition.
        """
        wanted, found = {*ids}, []
        for number in range(min(conditions, len(self.conditions.all))):
            names, own = iter(self.own.sample_id), {}
            for shown in self.blocks(number):
                for place, sample_id in enumerate(islice(names, len(shown.label))):
                    if sample_id in wanted:
                        own[sample_id] = shown.row(place)
            found.append(own)
        return [dict(ChainMap(*of_ranks)) for of_ranks in zip(*gather(found), strict=True)]

    def free(self) -> None:
        """Free the memory and the disk space of all scores and outcomes."""
        self._store, self._own, self.measured = ScoreStore(self.classes), None, {}

    @property
    def _metrics(self) -> list[str]:
        """Return the names of the metrics of a condition."""
        return names_of_metrics(self.classes.multilabel, len(self.classes.names), self.classes.mixed)

    def _blocks_of_own(self) -> Iterator[tuple[Block | None, slice, Tensor]]:
        """Yield blocks of the store, which of this rank's samples each has, and their rows within the block."""
        if not len(self._store):
            yield None, slice(0, 0), self.own.rows
        for block in self._store.blocks():
            ends = torch.tensor([block.rows.start, block.rows.stop])
            samples = slice(*torch.searchsorted(self.own.rows, ends).tolist())
            yield block, samples, self.own.rows[samples] - block.rows.start

    def _shown(self, block: Block | None, samples: slice, rows: Tensor, views: Tensor) -> Shown:
        """Return the samples in some rows of a block, each in a view."""
        logits = unknown = torch.empty(0, len(self.classes.names))
        if block is not None:
            logits = unknown = _in_views(block.logits, rows, views)
            if not block.is_known:
                unknown = _in_views(block.unknown, rows, views)
        cuts = torch.zeros(())
        if self.cuts is not None:
            patterns = torch.stack([view.patterns(self.own.present[samples]) for view in self.conditions.views])
            cuts = self.cuts.cpu()[patterns[views.long(), torch.arange(len(rows))]]
        return Shown(self.own.label[samples], logits, unknown, cuts)

    def _refuse_not_finite(self) -> None:
        """Check the logits of all ranks, see `compute`."""
        finite = self._store.finite[self.own.rows]
        bad = [self.own.sample_id[row] for row in (~finite).nonzero().flatten().tolist()]

        def refuse(parts: list[tuple[int, str | None]]) -> None:
            """Raise the error on rank 0."""
            count, samples = sum(part[0] for part in parts), len(self.own.of_all)
            if count and count == samples:
                raise RobustTuneError("no prediction is finite, so the weights have diverged: lower model.optimizer.lr")
            if count:
                first = min(name for _, name in parts if name is not None)
                raise RobustTuneError(
                    f"the predictions for {count} of {counted(samples, 'sample')} are not finite, the first is "
                    f"{first!r}: check it, and the encoders' precision"
                )

        on_rank_zero((len(bad), min(bad, default=None)), refuse)


def _in_views(read: Callable[[int], Tensor], rows: Tensor, views: Tensor) -> Tensor:
    """Return the logits of some rows, each in its view, shape (n, C).

    Args:
        read: Function that returns the logits of all rows of a block in a view.
        rows: Rows of the block, shape (n,).
        views: View of each of them, shape (n,).
    """
    first, *others = torch.unique(views).tolist() or [0]
    found = read(first)[rows]
    for view in others:
        places = views == view
        found[places] = read(view)[rows[places]]
    return found
