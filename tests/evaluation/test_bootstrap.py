"""The Poisson bootstrap, against closed forms, the Poisson distribution and the multinomial bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from multinomial import resampled_means
from scipy import stats
from torch import Tensor
from torch.nn import functional

from robusttune.evaluation.bootstrap import id_hashes, interval, poisson_weights
from robusttune.evaluation.classes import Classes
from robusttune.evaluation.intervals import bootstrapped
from robusttune.evaluation.outcomes import Outcomes

IDS = [f"{number}" for number in range(400)]


def test_weights_have_the_distribution_of_poisson() -> None:
    """Over resamples and over samples; two samples, and two resamples, are not correlated."""
    weights = poisson_weights(id_hashes(IDS), 0, 2000).double()
    assert weights.shape == (400, 2000)
    counts = torch.bincount(weights.long().flatten(), minlength=8)[:8].numpy() / weights.numel()
    assert counts == pytest.approx(stats.poisson(1).pmf(range(8)), abs=0.002)
    for axis in (0, 1):
        assert float(weights.mean(axis).var()) == pytest.approx(1 / weights.shape[axis], rel=0.25)
        correlations = torch.corrcoef(weights if axis else weights.T)
        others = correlations[~torch.eye(len(correlations), dtype=torch.bool)]
        assert float(others.std()) == pytest.approx(weights.shape[axis] ** -0.5, rel=0.05)


def test_weights_depend_on_the_id_and_the_resample_alone() -> None:
    hashes = id_hashes(IDS)
    weights = poisson_weights(hashes, 0, 90)
    assert torch.equal(poisson_weights(hashes[7:9], 0, 90), weights[7:9])
    assert torch.equal(poisson_weights(hashes, 40, 23), weights[:, 40:63])
    assert not torch.equal(poisson_weights(hashes, 0, 90, seed=1), weights)
    assert id_hashes(["a", "ü"]).tolist() == [3405396810240292928, 3976460501203677525]  # on every machine


def means(parts: Tensor, resamples: int) -> Tensor:
    """Weighted means (resamples, J) of values (N, J)."""
    weights = poisson_weights(id_hashes([f"{number}" for number in range(len(parts))]), 0, resamples).double().T
    return weights @ parts.double() / weights.sum(1, keepdim=True)


def test_means_spread_as_the_closed_form_says() -> None:
    """The variance of a resampled mean is that of the samples (divisor N) by N."""
    parts = torch.randn(400, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2.0, 0.0]) + 5
    found = means(parts, resamples=20_000)
    torch.testing.assert_close(found.mean(0), parts.double().mean(0), atol=0.005, rtol=0)
    torch.testing.assert_close(found.std(0), parts.double().std(0, correction=0) / 20, atol=0.0015, rtol=0)
    correlation = torch.corrcoef(found[:, :2].T)[0, 1]
    assert correlation == pytest.approx(float(torch.corrcoef(parts[:, :2].T.double())[0, 1]), abs=0.03)


def test_the_interval_is_scipys() -> None:
    rng = np.random.default_rng(0)
    samples = rng.exponential(size=150)
    theirs = stats.bootstrap((samples,), np.mean, method="percentile", n_resamples=20_000, rng=rng)
    low, high = interval(means(torch.tensor(samples)[:, None], resamples=20_000)[:, 0])
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.01)
    assert interval(torch.arange(101.0), level=0.9) == pytest.approx((5.0, 95.0))


def test_intervals_are_those_of_the_multinomial_bootstrap() -> None:
    """Both ends within 3 % of the width: of a mean, and of a macro F1 over classes of different sizes."""
    torch.manual_seed(0)
    label = torch.multinomial(torch.tensor([0.5, 0.3, 0.15, 0.05]), 600, replacement=True)
    predicted = torch.where(torch.rand(600) < 0.7, label, torch.randint(4, (600,)))
    losses, hits = torch.rand(600) ** 3, predicted == label
    outcomes = Outcomes(torch.arange(600, dtype=torch.int32), predicted, hits, {"accuracy": hits, "loss": losses}, {})
    classes = Classes(list("abcd"), torch.ones(4, dtype=torch.bool), multilabel=False)
    hashes = id_hashes([f"{number}" for number in range(600)])
    found = bootstrapped({"complete": outcomes}, label, hashes, classes, resamples=20_000)["complete"]
    truth, chosen = functional.one_hot(label), functional.one_hot(predicted)
    parts = torch.cat([truth * chosen, truth + chosen, hits.unsqueeze(1), losses.unsqueeze(1)], 1)
    theirs = resampled_means(parts, 20_000)
    expected = {
        "accuracy": theirs[:, 8],
        "loss": theirs[:, 9],
        "f1_macro": (2 * theirs[:, :4] / theirs[:, 4:8]).mean(1),
    }
    for metric, values in expected.items():
        low, high = interval(values)
        assert interval(found[metric]) == pytest.approx((low, high), abs=0.03 * (high - low)), metric
