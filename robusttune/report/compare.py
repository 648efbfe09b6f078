"""Comparison of models under the conditions of their tests."""

from __future__ import annotations

from dataclasses import dataclass

from robusttune.errors import RobustTuneError
from robusttune.evaluation.metric_names import LOWER_IS_BETTER
from robusttune.report.conditions import MEAN, in_order
from robusttune.report.differences import Difference, bootstrap, differences_to, same_samples
from robusttune.report.estimates import Estimate, estimates_of
from robusttune.report.models import Model
from robusttune.report.runs import Run, TestResults


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
        test_settings: Names of test settings that differ between the tests, such as ``noise`` or ``checkpoint``.
        same_samples: Flag for runs that were tested on the same samples whenever their data seeds are equal.

    Example:
        >>> model = Model("molt", [])
        >>> comparison = Comparison(
        ...     "accuracy", [model], model, ["complete"], ["complete"], differences={}, unpaired={}, test_settings=[],
        ...     same_samples=True, estimates={"molt": {"accuracy": {"complete": Estimate(0.9, None, seeds=1)}}},
        ... )
        >>> comparison.estimate(model, "complete").mean
        0.9
    """

    metric: str
    models: list[Model]
    baseline: Model
    conditions: list[str]
    shared: list[str]
    estimates: dict[str, dict[str, dict[str, Estimate]]]
    differences: dict[str, dict[str, Difference]]
    unpaired: dict[str, str]
    test_settings: list[str]
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
    bootstrapped = {model.label: bootstrap(model, metric) for model in models} if len(models) > 1 else {}
    differences, unpaired = differences_to(bootstrapped, baseline_model.label, shared, metric)
    return Comparison(
        metric=metric,
        models=models,
        baseline=baseline_model,
        conditions=in_order({name for tested in tests for name in tested.values} - {MEAN}),
        shared=shared,
        estimates={model.label: estimates_of(model.tests, metrics, shared) for model in models},
        differences=differences,
        unpaired=unpaired,
        test_settings=_different_settings(tests),
        same_samples=same_samples(bootstrapped),
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
    raise RobustTuneError(f"{option} is {name!r}, and no model has this label: choose from {labels}")


def _refuse_other_tasks(models: list[Model]) -> None:
    """Raise a RobustTuneError if two runs have different headline metrics or class names."""
    runs = [run for model in models for run in model.runs]
    first, headline, classes = _task(runs[0])
    for run in runs[1:]:
        folder, other_headline, other_classes = _task(run)
        advice = "report them separately"
        if other_headline != headline:
            raise RobustTuneError(
                f"the main metric of {first} is {headline}, that of {folder} is {other_headline}: {advice}"
            )
        if other_classes != classes:
            name = min(classes ^ other_classes)
            has, lacks = (first, folder) if name in classes else (folder, first)
            raise RobustTuneError(f"{has} has a class {name!r}, {lacks} does not: {advice}")


def _task(run: Run) -> tuple[str, str, set[str]]:
    """Return the folder, the headline metric and the class names of a tested run."""
    assert run.tested is not None
    return str(run.folder), run.tested.headline, {*run.tested.class_names}


def _different_settings(tests: list[TestResults]) -> list[str]:
    """Return the names of the test settings that differ, without their ``tested.`` prefix and without sub-settings."""
    names = dict.fromkeys(name for tested in tests for name in tested.test_settings)
    first = tests[0].test_settings
    different = (
        name for name in names if any(t.test_settings.get(name, "unset") != first.get(name, "unset") for t in tests)
    )
    return [*dict.fromkeys(name.split(".")[1] for name in different)]
