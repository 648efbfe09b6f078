"""Models beside each other: means over seeds, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, NamedTuple

from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.evaluation.bootstrap import interval
from robusttune.evaluation.metrics import LOWER_IS_BETTER
from robusttune.report.answers import read_answers
from robusttune.report.conditions import MEAN, in_order
from robusttune.report.models import Model, data_seeds
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
        asked: what not all tests asked for alike: ``noise``, ``checkpoint``, ...
        same_samples: whether runs with the same seeds of the data were tested on the same samples.
    """

    metric: str
    models: list[Model]
    baseline: Model
    conditions: list[str]
    shared: list[str]
    estimates: dict[str, dict[str, dict[str, Estimate]]]
    differences: dict[str, dict[str, Difference]]
    unpaired: dict[str, str]
    asked: list[str]
    same_samples: bool

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
    drawn = {model.label: _draw(model, metric) for model in models} if len(models) > 1 else {}
    differences, unpaired = _differences(drawn, of_baseline.label, shared, metric)
    return Comparison(
        metric=metric,
        models=models,
        baseline=of_baseline,
        conditions=in_order({name for tested in tests for name in tested.values} - {MEAN}),
        shared=shared,
        estimates={model.label: _estimates(model.tests, metrics, shared) for model in models},
        differences=differences,
        unpaired=unpaired,
        asked=_asked_apart(tests),
        same_samples=_same_samples(drawn),
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


def _asked_apart(tests: list[Tested]) -> list[str]:
    names = dict.fromkeys(name for tested in tests for name in tested.asked)
    first = tests[0].asked
    apart = (name for name in names if any(t.asked.get(name, "unset") != first.get(name, "unset") for t in tests))
    return [*dict.fromkeys(name.split(".")[1] for name in apart)]


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
    """The metric of a run on samples that are drawn anew: (resamples,) by condition; None where it is none of single
    samples."""

    run: Run
    tested: Tested
    samples: str
    values: dict[str, Tensor] | None


def _draw(model: Model, metric: str) -> list[_Drawn]:
    drawn = []
    for run, tested in zip(model.runs, model.tests, strict=True):
        answers = read_answers(run.answers)
        values = resampled(answers, metric)
        by_condition = None if values is None else dict(zip(answers.conditions, values.unbind(1), strict=True))
        drawn.append(_Drawn(run, tested, answers.samples, by_condition))
    return drawn


def _same_samples(drawn: dict[str, list[_Drawn]]) -> bool:
    samples: dict[tuple[Any, ...], set[str]] = {}
    for one in (one for of_model in drawn.values() for one in of_model):
        samples.setdefault(data_seeds(one.run), set()).add(one.samples)
    return all(len(of_seeds) == 1 for of_seeds in samples.values())


def _differences(
    drawn: dict[str, list[_Drawn]], baseline: str, shared: list[str], metric: str
) -> tuple[dict[str, dict[str, Difference]], dict[str, str]]:
    """Of each model by its label, and why there are none."""
    differences: dict[str, dict[str, Difference]] = {}
    unpaired: dict[str, str] = {}
    for label, mine in drawn.items():
        if label == baseline:
            continue
        theirs = drawn[baseline]
        pairs = _pairs(mine, theirs)
        if any(one.values is None for one in (*mine, *theirs)):
            unpaired[label] = f"{metric} does not follow from what is kept of single samples"
        elif pairs:
            differences[label] = _of_pairs(pairs, shared, metric)
        elif {one.samples for one in mine} & {one.samples for one in theirs}:
            unpaired[label] = f"it was tested with other data seeds than {baseline}"
        else:
            unpaired[label] = f"it was tested on other samples, or with other labels, than {baseline}"
    return differences, unpaired


def _pairs(mine: list[_Drawn], theirs: list[_Drawn]) -> list[tuple[_Drawn, _Drawn]]:
    """Runs on the same samples with the same seeds of the data, since noise and missing sides follow from these: first
    those that have their random start in common, too; each at most once."""
    pairs = []
    left, free = [*mine], [*theirs]
    for alike in (lambda run: (data_seeds(run), run.settings.get("seed_everything")), data_seeds):
        for one in [*left]:
            other = next((o for o in free if o.samples == one.samples and alike(o.run) == alike(one.run)), None)
            if other is not None:
                pairs.append((one, other))
                left.remove(one)
                free.remove(other)
    return pairs


def _of_pairs(pairs: list[tuple[_Drawn, _Drawn]], shared: list[str], metric: str) -> dict[str, Difference]:
    of_runs = [(a.values or {}, b.values or {}) for a, b in pairs]
    there = in_order(set.intersection(*({*values} for pair in of_runs for values in pair)))
    asked = {name: [name] for name in there}
    if shared and {*shared} <= {*there}:
        asked[MEAN] = shared
    found = {}
    for name, conditions in asked.items():
        told = [(mean_over(a.tested, conditions, metric), mean_over(b.tested, conditions, metric)) for a, b in pairs]
        known = [a - b for a, b in told if a is not None and b is not None]
        if len(known) < len(pairs):
            continue
        drawn = sum(a[c] - b[c] for a, b in of_runs for c in conditions) / (len(pairs) * len(conditions))
        assert isinstance(drawn, Tensor)
        found[name] = Difference(mean(known), *interval(drawn), len(pairs))
    return found
