"""Intervals: the resampled values are those of the metric, and the width is that of theory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fakes import FACTS
from hypothesis import given
from hypothesis import strategies as st
from one_condition import measured
from scipy.stats import binom, norm
from torch import Tensor

from robusttune.corruption.conditions import Conditions
from robusttune.evaluation import ConditionMetrics
from robusttune.evaluation.bootstrap import id_hashes, poisson_weights
from robusttune.evaluation.classes import Classes
from robusttune.evaluation.intervals import bootstrapped, confidence_intervals
from robusttune.evaluation.metrics import Measured

SURE = st.sampled_from([0.5, 4.0, 100.0])  # of the last, probabilities are 0 and 1 to the last digit


def values_of(found: Measured, label: Tensor, classes: Classes, resamples: int = 1000) -> dict[str, Tensor]:
    hashes = id_hashes([f"{number}" for number in range(len(label))])
    return bootstrapped({"complete": found.outcomes}, label, hashes, classes, resamples)["complete"]


def between_of(logits: Tensor, label: Tensor, **kind: Any) -> dict[str, tuple[float, float]]:
    return confidence_intervals(values_of(measured(logits, label, **kind), label, classes_of(logits, **kind)))


def classes_of(logits: Tensor, multilabel: bool = False, base: Tensor | None = None, **_: Tensor) -> Classes:
    count = logits.shape[1]
    everything = torch.ones(count, dtype=torch.bool)
    return Classes([f"{number}" for number in range(count)], everything if base is None else base, multilabel)


def assert_same(logits: Tensor, label: Tensor, **kind: Any) -> None:
    """The value in a resample is that of the metric, if each sample is there as often as its weight says.

    Ranking metrics and calibration have no values.
    """
    found = values_of(measured(logits, label, **kind), label, classes_of(logits, **kind), resamples=2)
    weights = poisson_weights(id_hashes([f"{number}" for number in range(len(label))]), 0, 2)
    for number, column in enumerate(weights.T):
        rows = torch.arange(len(label)).repeat_interleave(column.long())
        if not len(rows):
            assert found["loss"][number].isnan()
            continue
        again = {name: value[rows] if name == "unknown" else value for name, value in kind.items()}
        metrics = measured(logits[rows], label[rows], **again).metrics
        assert {*metrics} - {*found} <= {"auroc", "average_precision", "calibration_error"}
        for name, values in found.items():
            assert float(values[number]) == pytest.approx(metrics[name], abs=2e-6, rel=1e-5, nan_ok=True), name


def scattered(samples: int, classes: int, sure: float, seed: int) -> tuple[Tensor, Tensor]:
    """Logits, and labels of which some classes may have none."""
    torch.manual_seed(seed)
    return sure * torch.randn(samples, classes), (classes * torch.rand(samples) ** 3).long()


@given(st.integers(0, 999), st.integers(1, 50), st.sampled_from([2, 6, 9]), SURE)
def test_multiclass_values_are_the_metrics(seed: int, samples: int, classes: int, sure: float) -> None:
    logits, label = scattered(samples, classes, sure, seed)
    assert_same(logits, label)


@given(st.integers(0, 999), st.integers(1, 50), SURE)
def test_multilabel_values_are_the_metrics(seed: int, samples: int, sure: float) -> None:
    """Also with a class that no sample has and that is never predicted, and with logits of 0."""
    logits, _ = scattered(samples, 5, sure, seed)
    logits[:, 4] = -abs(logits[:, 4])
    logits[torch.rand(logits.shape) < 0.1] = 0.0
    label = (torch.rand(samples, 5) < torch.tensor([0.5, 0.9, 0.1, 0.02, 0.0])).float()
    assert_same(logits, label, multilabel=True)


@given(st.integers(0, 999), st.integers(1, 50), SURE)
def test_base_and_new_values_are_the_metrics(seed: int, samples: int, sure: float) -> None:
    """Also if no sample has a class of one kind."""
    logits, label = scattered(samples, 5, sure, seed)
    base, unknown = torch.tensor([True, True, False, True, False]), logits + torch.randn(logits.shape)
    assert_same(logits, label, base=base, unknown=unknown)


def test_the_interval_of_accuracy_is_that_of_the_binomial_distribution() -> None:
    right, samples = 330, 400
    label = torch.zeros(samples, dtype=torch.int64)
    logits = torch.stack([(torch.arange(samples) < right).float(), torch.full((samples,), 0.5)], 1)
    low, high = between_of(logits, label)["accuracy"]
    expected = binom(samples, right / samples).ppf([0.025, 0.975]) / samples
    assert (low, high) == pytest.approx(tuple(expected), abs=0.004)


def test_the_interval_of_a_mean_follows_from_its_standard_error() -> None:
    logits, label = scattered(500, 4, 1.0, seed=3)
    found = between_of(logits, label)
    losses = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    reach = norm.ppf(0.975) * float(losses.std()) / math.sqrt(500)
    assert found["loss"] == pytest.approx((float(losses.mean()) - reach, float(losses.mean()) + reach), abs=0.1 * reach)
    for name, value in measured(logits, label).metrics.items():
        if name in ("accuracy", "brier", "f1_weighted"):
            assert found[name][0] < value < found[name][1]


def test_a_metric_that_no_resample_defines_has_no_interval() -> None:
    logits, base = torch.randn(20, 3), torch.tensor([True, True, False])
    found = between_of(logits, torch.arange(20) % 2, base=base)
    assert {"base_accuracy", "unknown_accuracy", "loss"} <= {*found}
    assert not {"new_accuracy", "harmonic_mean"} & {*found}


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "base and new"])
def test_each_condition_has_its_own(kind: str) -> None:
    """A condition that shows half the samples in each of two views has an interval between theirs."""
    torch.manual_seed(0)
    names = [*FACTS.class_names, "new"] if kind == "base and new" else FACTS.class_names
    conditions = Conditions(["missing_image_50", "no_image", "complete"])
    facts = FACTS._replace(multilabel=kind == "multilabel")
    metrics = ConditionMetrics(facts, conditions, names)
    classes = torch.arange(60) % len(names)
    hot = torch.nn.functional.one_hot(classes, len(names)).float()
    complete, missing = 3 * hot + torch.randn(hot.shape), 3 * hot.roll(1, 1) + torch.randn(hot.shape)
    logits = torch.stack([missing if view.image is None else complete for view in conditions.views])
    label = hot if kind == "multilabel" else classes
    metrics.update([f"{i:02}" for i in range(60)], label, torch.ones(60, 2, dtype=torch.bool), logits)
    values = metrics.compute()
    found = metrics.intervals()
    assert [*found] == [*conditions.names, "mean"]
    alone = ConditionMetrics(facts, Conditions(["complete"]), names)
    alone.update([f"{i:02}" for i in range(60)], label, torch.ones(60, 2, dtype=torch.bool), complete.unsqueeze(0))
    alone.compute()
    assert alone.intervals()["complete"] == found["complete"]
    for condition, row in found.items():
        low, high = row[metrics.headline]
        assert low <= values[f"{condition}/{metrics.headline}"] <= high
    low, high = found["mean"][metrics.headline]
    widths = [found[name][metrics.headline][1] - found[name][metrics.headline][0] for name in conditions.names]
    assert high - low < sum(widths) / 3
    worst, middle, best = (found[name][metrics.headline] for name in ("no_image", "missing_image_50", "complete"))
    assert worst[1] < middle[0] < middle[1] < best[0]
