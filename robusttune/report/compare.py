"""Comparison of models: means over seeds, and differences to a baseline with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, NamedTuple

from torch import Tensor

from robusttune.errors import RobustTuneError
from robusttune.evaluation.bootstrap import interval
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.report.conditions import MEAN, in_order
from robusttune.report.models import Model, data_seeds
from robusttune.report.predictions import read_predictions
from robusttune.report.resample import resampled
from robusttune.report.runs import Run, TestResults


class Estimate(NamedTuple):
    """The value of a metric for a model.

    Attributes:
        mean: Mean over seeds.
        deviation: Standard deviation over seeds, with n - 1 in the denominator; None for a single seed.
        seeds: Number of seeds with a known value.
        low: Lower end of the 95 % bootstrap interval over samples; None for several seeds or if it is unknown.
        high: Upper end of the 95 % bootstrap interval over samples; None for several seeds or if it is unknown.

    Example:
        >>> Estimate(mean=0.5, deviation=0.25, seeds=3).band
        (0.25, 0.75)
    """

    mean: float
    deviation: float | None
    seeds: int
    low: float | None = None
    high: float | None = None

    @property
    def band(self) -> tuple[float, float]:
        """Return the interval to draw: the one over samples if it is known, else mean ± one standard deviation."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        spread = self.deviation or 0.0
        return self.mean - spread, self.mean + spread


class Difference(NamedTuple):
    """The difference of a metric between a model and the baseline, model minus baseline.

    Attributes:
        mean: Mean over pairs of runs.
        low: Lower end of the 95 % paired bootstrap interval over samples.
        high: Upper end of the 95 % paired bootstrap interval over samples.
        pairs: Number of pairs of runs.

    Example:
        >>> Difference(mean=0.02, low=0.01, high=0.03, pairs=1).clear
        True
    """

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def clear(self) -> bool:
        """Return whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """A comparison of models that were trained for the same task.

    Attributes:
        metric: Name of the metric that is compared.
        models: Compared models in the given order.
        baseline: Reference model for the differences.
        conditions: Sorted conditions of all models together, without the mean.
        shared: Sorted conditions that all models have; means are taken over these.
        estimates: Estimates by model label, metric, and condition or ``mean``.
        differences: Differences to the baseline by model label, and condition or ``mean``.
        unpaired: Reason for missing differences by model label.
        asked: Names of test settings that differ between the tests, such as ``noise`` or ``checkpoint``.
        same_samples: Flag for runs that were tested on the same samples whenever their data seeds are equal.
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
        """Return the names of all metrics that any model has."""
        return [*dict.fromkeys(metric for by_metric in self.estimates.values() for metric in by_metric)]

    def estimate(self, model: Model, condition: str, metric: str | None = None) -> Estimate | None:
        """Return the estimate of a model under a condition, or None if it is unknown.

        Args:
            model: One of the compared models.
            condition: Name of a condition, or ``mean``.
            metric: Name of a metric; None for the metric of the comparison.
        """
        return self.estimates[model.label].get(metric or self.metric, {}).get(condition)

    def best(self, condition: str, metric: str | None = None) -> list[Model]:
        """Return the models with the best value under a condition; none if no value is known.

        Args:
            condition: Name of a condition, or ``mean``.
            metric: Name of a metric; None for the metric of the comparison.
        """
        sign = -1 if (metric or self.metric) in LOWER_IS_BETTER else 1
        known = [(m, sign * e.mean) for m in self.models if (e := self.estimate(m, condition, metric)) is not None]
        return [model for model, value in known if value == max(value for _, value in known)]


def compare(models: list[Model], baseline: str | None = None, metric: str | None = None) -> Comparison:
    """Compare models with a baseline by a metric.

    The intervals of the differences come from a paired bootstrap over test samples (Efron 1979).

    Args:
        models: Models with tested runs, at least one.
        baseline: Label of the baseline; None for the first model.
        metric: Name of a metric; None for the headline metric of the task.

    Raises:
        RobustTuneError: The models are for different tasks, or there is no such model or metric.
    """
    _refuse_other_tasks(models)
    tests = [tested for model in models for tested in model.tests]
    shared = in_order(set.intersection(*({*tested.values} for tested in tests)) - {MEAN})
    metric = tests[0].headline if metric is None else metric
    metrics = [*dict.fromkeys(name for tested in tests for row in tested.values.values() for name in row)]
    if metric not in metrics:
        raise RobustTuneError(f"there is no metric {metric!r}: choose from {', '.join(metrics)}")
    baseline_model = models[0] if baseline is None else named(models, baseline, "--baseline")
    bootstrapped = {model.label: _bootstrap(model, metric) for model in models} if len(models) > 1 else {}
    differences, unpaired = _differences(bootstrapped, baseline_model.label, shared, metric)
    return Comparison(
        metric=metric,
        models=models,
        baseline=baseline_model,
        conditions=in_order({name for tested in tests for name in tested.values} - {MEAN}),
        shared=shared,
        estimates={model.label: _estimates(model.tests, metrics, shared) for model in models},
        differences=differences,
        unpaired=unpaired,
        asked=_different_settings(tests),
        same_samples=_same_samples(bootstrapped),
    )


def named(models: list[Model], name: str, option: str) -> Model:
    """Return the model with a label.

    Args:
        models: Models to search.
        name: Label of the model.
        option: Command-line option that gave the label, for the error message.

    Raises:
        RobustTuneError: No model has this label.
    """
    for model in models:
        if model.label == name:
            return model
    labels = "; ".join(model.label for model in models)
    raise RobustTuneError(f"{option} names {name!r}, and there is no such model: choose from {labels}")


def _refuse_other_tasks(models: list[Model]) -> None:
    """Raise a RobustTuneError if two runs have different headline metrics or class names."""
    runs = [run for model in models for run in model.runs]
    first, headline, classes = _task(runs[0])
    for run in runs[1:]:
        folder, other_headline, other_classes = _task(run)
        advice = "report them apart"
        if other_headline != headline:
            raise RobustTuneError(f"{first} is judged by {headline}, {folder} by {other_headline}: {advice}")
        if other_classes != classes:
            name = min(classes ^ other_classes)
            has, lacks = (first, folder) if name in classes else (folder, first)
            raise RobustTuneError(f"{has} tells a class {name!r} apart, {lacks} does not: {advice}")


def _task(run: Run) -> tuple[str, str, set[str]]:
    """Return the folder, the headline metric and the class names of a tested run."""
    assert run.tested is not None
    return str(run.folder), run.tested.headline, {*run.tested.class_names}


def _different_settings(tests: list[TestResults]) -> list[str]:
    """Return the names of the test settings that differ, without their ``tested.`` prefix and without sub-settings."""
    names = dict.fromkeys(name for tested in tests for name in tested.asked)
    first = tests[0].asked
    different = (name for name in names if any(t.asked.get(name, "unset") != first.get(name, "unset") for t in tests))
    return [*dict.fromkeys(name.split(".")[1] for name in different)]


def _estimates(tests: list[TestResults], metrics: list[str], shared: list[str]) -> dict[str, dict[str, Estimate]]:
    """Return the known estimates of a model by metric, and by condition or ``mean``."""
    estimates: dict[str, dict[str, Estimate]] = {}
    conditions = in_order({name for tested in tests for name in tested.values} - {MEAN})
    for metric in metrics:
        by_condition = {name: _estimate(tests, [name], name, metric) for name in conditions}
        by_condition[MEAN] = _estimate(tests, shared, MEAN, metric)
        estimates[metric] = {name: estimate for name, estimate in by_condition.items() if estimate is not None}
    return estimates


def _estimate(tests: list[TestResults], conditions: list[str], name: str, metric: str) -> Estimate | None:
    """Return the estimate of a metric's mean over conditions, or None if no test has a value under all of them.

    Args:
        tests: Tests of a model, one per seed. Tests without a value under one of the conditions are left out.
        conditions: Conditions to average over.
        name: Name of the interval in the tests: the condition, or ``mean``.
        metric: Name of the metric.
    """
    known = [(t, v) for t in tests if (v := mean_over(t, conditions, metric)) is not None]
    if not known:
        return None
    values = [value for _, value in known]
    if len(values) > 1:
        return Estimate(mean(values), stdev(values), len(values))
    tested = known[0][0]
    # The interval of the mean only holds if the test averaged over the same conditions.
    same_mean = name != MEAN or {*conditions} == {*tested.values} - {MEAN}
    return Estimate(values[0], None, 1, *(tested.intervals.get(name, {}).get(metric, ()) if same_mean else ()))


def mean_over(tested: TestResults, conditions: Sequence[str], metric: str) -> float | None:
    """Return the mean of a metric over conditions.

    Args:
        tested: Results of a test.
        conditions: Names of the conditions to average over.
        metric: Name of the metric.

    Returns:
        The mean, or None if the value is unknown under any condition or there are no conditions.
    """
    values = [tested.values.get(name, {}).get(metric) for name in conditions]
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


class _BootstrappedRun(NamedTuple):
    """A run with the bootstrap distribution of a metric.

    Attributes:
        run: Run itself.
        tested: Results of its test.
        samples: Hash of the test samples.
        values: Metric in each resample by condition, shape (resamples,), float64; None if the metric cannot be
            computed from the predictions for single samples.
    """

    run: Run
    tested: TestResults
    samples: str
    values: dict[str, Tensor] | None


def _bootstrap(model: Model, metric: str) -> list[_BootstrappedRun]:
    """Compute the bootstrap distribution of a metric for each run of a model."""
    bootstrapped = []
    for run, tested in zip(model.runs, model.tests, strict=True):
        predictions = read_predictions(run.predictions)
        values = resampled(predictions, metric)
        by_condition = None if values is None else dict(zip(predictions.conditions, values.unbind(1), strict=True))
        bootstrapped.append(_BootstrappedRun(run, tested, predictions.samples, by_condition))
    return bootstrapped


def _same_samples(bootstrapped: dict[str, list[_BootstrappedRun]]) -> bool:
    """Return whether runs with the same data seeds were tested on the same samples."""
    samples: dict[tuple[Any, ...], set[str]] = {}
    for entry in (entry for entries in bootstrapped.values() for entry in entries):
        samples.setdefault(data_seeds(entry.run), set()).add(entry.samples)
    return all(len(hashes) == 1 for hashes in samples.values())


def _differences(
    bootstrapped: dict[str, list[_BootstrappedRun]], baseline: str, shared: list[str], metric: str
) -> tuple[dict[str, dict[str, Difference]], dict[str, str]]:
    """Return the differences to the baseline by model label, and for models without any the reason by model label."""
    differences: dict[str, dict[str, Difference]] = {}
    unpaired: dict[str, str] = {}
    for label, mine in bootstrapped.items():
        if label == baseline:
            continue
        theirs = bootstrapped[baseline]
        pairs = _pairs(mine, theirs)
        if any(entry.values is None for entry in (*mine, *theirs)):
            unpaired[label] = f"{metric} does not follow from what is kept of single samples"
        elif pairs:
            differences[label] = _paired_differences(pairs, shared, metric)
        elif {entry.samples for entry in mine} & {entry.samples for entry in theirs}:
            unpaired[label] = f"it was tested with other data seeds than {baseline}"
        else:
            unpaired[label] = f"it was tested on other samples, or with other labels, than {baseline}"
    return differences, unpaired


def _pairs(
    mine: list[_BootstrappedRun], theirs: list[_BootstrappedRun]
) -> list[tuple[_BootstrappedRun, _BootstrappedRun]]:
    """Pair runs of two models; each run is in one pair at most.

    The runs of a pair have the same test samples and the same data seeds, because noise and missing modalities depend
    on these seeds. Runs that also have the same ``seed_everything`` are paired first.
    """
    pairs = []
    unpaired, free = [*mine], [*theirs]
    for key in (lambda run: (data_seeds(run), run.settings.get("seed_everything")), data_seeds):
        for entry in [*unpaired]:
            other = next((o for o in free if o.samples == entry.samples and key(o.run) == key(entry.run)), None)
            if other is not None:
                pairs.append((entry, other))
                unpaired.remove(entry)
                free.remove(other)
    return pairs


def _paired_differences(
    pairs: list[tuple[_BootstrappedRun, _BootstrappedRun]], shared: list[str], metric: str
) -> dict[str, Difference]:
    """Return the mean difference over pairs by condition or ``mean``; conditions with unknown values are left out."""
    values = [(a.values or {}, b.values or {}) for a, b in pairs]
    common = in_order(set.intersection(*({*by_condition} for pair in values for by_condition in pair)))
    averaged = {name: [name] for name in common}
    if shared and {*shared} <= {*common}:
        averaged[MEAN] = shared
    differences = {}
    for name, conditions in averaged.items():
        means = [(mean_over(a.tested, conditions, metric), mean_over(b.tested, conditions, metric)) for a, b in pairs]
        known = [a - b for a, b in means if a is not None and b is not None]
        if len(known) < len(pairs):
            continue
        resamples = sum(a[c] - b[c] for a, b in values for c in conditions) / (len(pairs) * len(conditions))
        assert isinstance(resamples, Tensor)
        differences[name] = Difference(mean(known), *interval(resamples), len(pairs))
    return differences
