"""The bootstrap, against closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from robusttune.evaluation import bootstrap
from robusttune.evaluation.bootstrap import interval, resampled_means


def test_means_spread_as_the_closed_form_says() -> None:
    """The variance of a resampled mean is that of the samples (divisor N) by N."""
    parts = torch.randn(400, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2.0, 0.0]) + 5
    means = resampled_means(parts, resamples=20_000)
    assert means.shape == (20_000, 3)
    assert means.dtype == torch.float64
    torch.testing.assert_close(means.mean(0), parts.double().mean(0), atol=0.005, rtol=0)
    expected = parts.double().std(0, correction=0) / 20
    torch.testing.assert_close(means.std(0), expected, atol=0.0015, rtol=0)
    correlation = torch.corrcoef(means[:, :2].T)[0, 1]
    assert correlation == pytest.approx(float(torch.corrcoef(parts[:, :2].T.double())[0, 1]), abs=0.03)


def test_the_interval_is_scipys() -> None:
    rng = np.random.default_rng(0)
    samples = rng.exponential(size=150)
    theirs = stats.bootstrap((samples,), np.mean, method="percentile", n_resamples=20_000, rng=rng)
    low, high = interval(resampled_means(torch.tensor(samples)[:, None], resamples=20_000)[:, 0])
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.01)
    assert interval(torch.arange(101.0), level=0.9) == pytest.approx((5.0, 95.0))


def test_draws_depend_on_samples_and_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = torch.rand(50, 7)
    means = resampled_means(parts, 90, seed=3)
    assert torch.allclose(resampled_means(parts[:, 2:3], 90, seed=3), means[:, 2:3])
    assert torch.allclose(resampled_means(parts.bfloat16().float(), 90, 3), resampled_means(parts.bfloat16(), 90, 3))
    assert not torch.allclose(resampled_means(parts, 90, seed=4), means)
    monkeypatch.setattr(bootstrap, "CHUNK", 130)  # a few resamples and columns at a time
    assert torch.allclose(resampled_means(parts, 90, seed=3), means)


def test_a_single_sample_is_always_drawn() -> None:
    assert resampled_means(torch.tensor([[2.5, -1.0]]), 4).tolist() == [[2.5, -1.0]] * 4
