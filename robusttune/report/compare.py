"""Models beside each other: means over seeds, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import NamedTuple

from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.evaluation.bootstrap import interval
from robusttune.evaluation.metrics import LOWER_IS_BETTER
from robusttune.report.answers import read_answers
from robusttune.report.conditions import MEAN, in_order
from robusttune.report.models import Model, seeds_of
from robusttune.report.resample import resampled
from robusttune.report.runs import Run, Tested


class Estimate(NamedTuple):
    """A value of a model.

    Attributes:
        mean: over seeds.
        deviation: standard deviation over seeds (n - 1); None for one.
        seeds: that have the value.
        low: of the 95 % interval over samples, where there is one seed, and it is known.
        high: likewise.
    """

    mean: float
    deviation: float | None
    seeds: int
    low: float | None = None
    high: float | None = None

    @property
    def band(self) -> tuple[float, float]:
        """From where to where it may lie: the interval over samples, or one deviation to either side."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        spread = self.deviation or 0.0
        return self.mean - spread, self.mean + spread


class Difference(NamedTuple):
    """How much more a model has than the baseline.

    Attributes:
        mean: over pairs of runs.
        low: of the 95 % interval over samples.
        high: likewise.
        pairs: of runs.
    """

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Models of one task.

    Attributes:
        metric: that they are compared by.
        models: in the order given.
        baseline: one of them.
        conditions: that some model has, in order, without the mean.
        shared: those that all have, over which means are taken.
        estimates: label -> metric -> condition or ``mean``.
        differences: label -> condition or ``mean``.
        unpaired: label -> why there are no differences of it.
    """

    metric: str
    models: list[Model]
    baseline: Model
    conditions: list[str]
    shared: list[str]
    estimates: dict[str, dict[str, dict[str, Estimate]]]
    differences: dict[str, dict[str, Difference]]
    unpaired: dict[str, str]

    @property
    def metrics(self) -> list[str]:
        return [*dict.fromkeys(metric for of_model in self.estimates.values() for metric in of_model)]

    def estimate(self, model: Model, condition: str, metric: str | None = None) -> Estimate | None:
        """None where it is unknown; by default of the metric that models are compared by."""
        return self.estimates[model.label].get(metric or self.metric, {}).get(condition)

    def best(self, condition: str, metric: str | None = None) -> list[Model]:
        """The model with the best value, or several with the same."""
        sign = -1 if (metric or self.metric) in LOWER_IS_BETTER else 1
        known = [(m, sign * e.mean) for m in self.models if (e := self.estimate(m, condition, metric)) is not None]
        return [model for model, value in known if value == max(value for _, value in known)]


def compare(models: list[Model], baseline: str | None = None, metric: str | None = None) -> Comparison:
    """Compare them by a metric, by default the headline, with a baseline, by default the first.

    Raises:
        RobustTuneError: they are of different tasks, or there is no such model or metric.
    """
    _refuse_other_tasks(models)
    tests = [tested for model in models for tested in model.tests]
    shared = in_order(set.intersection(*({*tested.values} for tested in tests)) - {MEAN})
    metric = tests[0].headline if metric is None else metric
    metrics = [*dict.fromkeys(name for tested in tests for row in tested.values.values() for name in row)]
    if metric not in metrics:
        raise RobustTuneError(f"there is no metric {metric!r}: choose from {', '.join(metrics)}")
    of_baseline = models[0] if baseline is None else named(models, baseline, "--baseline")
    differences, unpaired = _differences(models, of_baseline, shared, metric)
    return Comparison(
        metric=metric,
        models=models,
        baseline=of_baseline,
        conditions=in_order({name for tested in tests for name in tested.values} - {MEAN}),
        shared=shared,
        estimates={model.label: _estimates(model.tests, metrics, shared) for model in models},
        differences=differences,
        unpaired=unpaired,
    )


def named(models: list[Model], name: str, option: str) -> Model:
    """The model of this label.

    Raises:
        RobustTuneError: there is none.
    """
    for model in models:
        if model.label == name:
            return model
    there = "; ".join(model.label for model in models)
    raise RobustTuneError(f"{option} names {name!r}, and there is no such model: choose from {there}")


def _refuse_other_tasks(models: list[Model]) -> None:
    runs = [run for model in models for run in model.runs]
    first, headline, classes = _task(runs[0])
    for run in runs[1:]:
        folder, other_headline, other_classes = _task(run)
        apart = "report them apart"
        if other_headline != headline:
            raise RobustTuneError(f"{first} is judged by {headline}, {folder} by {other_headline}: {apart}")
        if other_classes != classes:
            name = min(classes ^ other_classes)
            has, lacks = (first, folder) if name in classes else (folder, first)
            raise RobustTuneError(f"{has} tells a class {name!r} apart, {lacks} does not: {apart}")


def _task(run: Run) -> tuple[str, str, set[str]]:
    assert run.tested is not None
    return str(run.folder), run.tested.headline, {*run.tested.class_names}


def _estimates(tests: list[Tested], metrics: list[str], shared: list[str]) -> dict[str, dict[str, Estimate]]:
    """metric -> condition or ``mean`` -> estimate."""
    found: dict[str, dict[str, Estimate]] = {}
    conditions = in_order({name for tested in tests for name in tested.values} - {MEAN})
    for metric in metrics:
        of_metric = {name: _estimate(tests, [name], name, metric) for name in conditions}
        of_metric[MEAN] = _estimate(tests, shared, MEAN, metric)
        found[metric] = {name: estimate for name, estimate in of_metric.items() if estimate is not None}
    return found


def _estimate(tests: list[Tested], conditions: list[str], name: str, metric: str) -> Estimate | None:
    """Of the mean over conditions, for tests that know it under all of them."""
    known = [(t, v) for t in tests if (v := mean_over(t, conditions, metric)) is not None]
    if not known:
        return None
    values = [value for _, value in known]
    if len(values) > 1:
        return Estimate(mean(values), stdev(values), len(values))
    tested = known[0][0]
    same = name != MEAN or {*conditions} == {*tested.values} - {MEAN}  # else the interval is of another mean
    return Estimate(values[0], None, 1, *(tested.intervals.get(name, {}).get(metric, ()) if same else ()))


def mean_over(tested: Tested, conditions: Sequence[str], metric: str) -> float | None:
    """None where it is unknown under one of them, or there are none."""
    values = [tested.values.get(name, {}).get(metric) for name in conditions]
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


class _Drawn(NamedTuple):
    """The metric of a run on samples that are drawn anew: (resamples,) by condition."""

    run: Run
    tested: Tested
    samples: str
    values: dict[str, Tensor]


def _differences(
    models: list[Model], baseline: Model, shared: list[str], metric: str
) -> tuple[dict[str, dict[str, Difference]], dict[str, str]]:
    """Of each model, and why there are none."""
    differences: dict[str, dict[str, Difference]] = {}
    unpaired: dict[str, str] = {}
    of_baseline = _draw(baseline, metric) if len(models) > 1 else []
    for model in models:
        if model is baseline:
            continue
        if of_baseline is None:
            unpaired[model.label] = f"{metric} does not follow from what is kept of single samples"
            continue
        pairs = _pairs(_draw(model, metric) or [], of_baseline)
        if pairs:
            differences[model.label] = _of_pairs(pairs, shared, metric)
        else:
            unpaired[model.label] = f"it was tested on other samples, or with other labels, than {baseline.label}"
    return differences, unpaired


def _draw(model: Model, metric: str) -> list[_Drawn] | None:
    """None where the metric is none of single samples."""
    drawn = []
    for run, tested in zip(model.runs, model.tests, strict=True):
        answers = read_answers(run.answers)
        values = resampled(answers, metric)
        if values is None:
            return None
        by_condition = dict(zip(answers.conditions, values.unbind(1), strict=True))
        drawn.append(_Drawn(run, tested, answers.samples, by_condition))
    return drawn


def _pairs(mine: list[_Drawn], theirs: list[_Drawn]) -> list[tuple[_Drawn, _Drawn]]:
    """Runs on the same samples: first those with all seeds in common, then those with the seeds of the data, then in
    order; each at most once."""
    pairs = []
    left, free = [*mine], [*theirs]
    for alike in (seeds_of, lambda run: seeds_of(run, of_data_only=True), lambda run: None):
        for one in [*left]:
            other = next((o for o in free if o.samples == one.samples and alike(o.run) == alike(one.run)), None)
            if other is not None:
                pairs.append((one, other))
                left.remove(one)
                free.remove(other)
    return pairs


def _of_pairs(pairs: list[tuple[_Drawn, _Drawn]], shared: list[str], metric: str) -> dict[str, Difference]:
    there = [name for name in in_order(pairs[0][0].values) if all(name in run.values for pair in pairs for run in pair)]
    asked = {name: [name] for name in there}
    if shared and {*shared} <= {*there}:
        asked[MEAN] = shared
    found = {}
    for name, conditions in asked.items():
        told = [(mean_over(a.tested, conditions, metric), mean_over(b.tested, conditions, metric)) for a, b in pairs]
        known = [a - b for a, b in told if a is not None and b is not None]
        if len(known) < len(pairs):
            continue
        drawn = sum(a.values[c] - b.values[c] for a, b in pairs for c in conditions) / (len(pairs) * len(conditions))
        assert isinstance(drawn, Tensor)
        found[name] = Difference(mean(known), *interval(drawn), len(pairs))
    return found
