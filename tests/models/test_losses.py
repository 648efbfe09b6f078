"""The correlation loss against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA
from torch import Tensor
from two_ranks import in_ranks

from robusttune.models import CorrelationLoss
from robusttune.models.losses import Moments, correlation, gather_moments, shuffled_correlation


def correlated_views(rows: int, width: int, views: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two views (views, rows, width) of which the first dimensions agree more than the last."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(views, rows, width, generator=rng, dtype=torch.float64)
    noise = torch.randn(views, rows, width, generator=rng, dtype=torch.float64)
    mix = torch.randn(views, width, width, generator=rng, dtype=torch.float64)
    return x, (x + noise * torch.linspace(0.2, 3, width)) @ mix


def everyone(views: Tensor) -> Tensor:
    return torch.ones(views.shape[1], dtype=torch.bool)


def unridged(moments: Moments) -> Tensor:
    """Sum of canonical correlations by eigendecomposition, without a ridge."""
    total = torch.zeros((), dtype=torch.float64)
    for s11, s22, s12 in zip(moments.s11, moments.s22, moments.s12, strict=True):
        roots = []
        for s in (s11, s22):
            values, vectors = torch.linalg.eigh(s)
            roots.append(vectors @ torch.diag(values.rsqrt()) @ vectors.T)
        total += torch.linalg.svdvals(roots[0] @ s12 @ roots[1]).sum()
    return total / len(moments.s11)


def test_agrees_with_scikit_learn_as_the_ridge_vanishes() -> None:
    x, y = correlated_views(rows=400, width=3)
    cca = CCA(n_components=3, max_iter=5000, tol=1e-10).fit(x[0].numpy(), y[0].numpy())
    u, v = cca.transform(x[0].numpy(), y[0].numpy())
    expected = sum(np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(3))
    moments = gather_moments(x, y, everyone(x))
    errors = [abs(correlation(moments, ridge) - expected) for ridge in (1e-2, 1e-3, 1e-5, 0.0)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5
    assert -3 * CorrelationLoss(1, 3)(x, y, everyone(x)) == pytest.approx(float(correlation(moments)))


def test_cholesky_whitening_equals_inverse_square_roots() -> None:
    x, y = correlated_views(rows=100, width=5, views=3)
    moments = gather_moments(x, y, everyone(x))
    eye = torch.eye(5, dtype=torch.float64)
    ridges = [1e-3 * s.diagonal(dim1=1, dim2=2).sum(1).view(-1, 1, 1) / 5 + 1e-6 for s in (moments.s11, moments.s22)]
    ridged = Moments(moments.rows, moments.s11 + ridges[0] * eye, moments.s22 + ridges[1] * eye, moments.s12)
    assert correlation(moments) == pytest.approx(float(unridged(ridged)), abs=1e-10)


def test_is_scale_free_and_in_range() -> None:
    x, y = correlated_views(rows=64, width=4)
    loss = CorrelationLoss(1, 4)
    small, large = (loss(x * scale, y * scale, everyone(x)) for scale in (1.0, 1e3))
    assert small == pytest.approx(float(large), abs=1e-6)
    assert -1 <= small <= 0
    assert loss(x, x, everyone(x)) == pytest.approx(-1, abs=2e-3)


def test_gradient_is_right_even_where_correlations_repeat() -> None:
    x, y = correlated_views(rows=12, width=3)
    counted = everyone(x)
    counted[3] = False
    loss = CorrelationLoss(1, 3)
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, counted), (x.requires_grad_(), y.requires_grad_()))
    same = x.detach().clone().requires_grad_()
    loss(same, same.detach(), counted).backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()


def test_only_counted_rows_matter_whatever_the_others_hold() -> None:
    x, y = correlated_views(rows=20, width=3)
    counted = torch.arange(20) < 14
    expected = CorrelationLoss(1, 3)(x[:, :14], y[:, :14], counted[:14])
    x[:, 14:], y[:, 15:] = float("nan"), float("inf")
    x.requires_grad_()
    actual = CorrelationLoss(1, 3)(x, y, counted)
    assert actual.item() == pytest.approx(expected.item(), abs=1e-12)
    actual.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[:, 14:] == 0).all()


def test_views_that_are_not_finite_give_nan_not_an_exception() -> None:
    x, y = correlated_views(rows=9, width=3)
    y[0, 4, 1] = float("inf")
    assert CorrelationLoss(1, 3)(x, y, everyone(x)).isnan()


@pytest.mark.parametrize("rows", [0, 1])
def test_is_zero_and_connected_with_fewer_than_two_rows(rows: int) -> None:
    x, y = correlated_views(rows=5, width=3)
    x.requires_grad_()
    loss = CorrelationLoss(1, 3)(x, y, torch.arange(5) < rows)
    loss.backward()
    assert loss == 0
    assert x.grad is not None
    assert (x.grad == 0).all()


def test_independent_views_reach_chance_level() -> None:
    """METHODS: about -0.44 for independent features at 4c rows."""
    torch.manual_seed(0)
    width = 16
    x, y = torch.randn(2, 50, 4 * width, width, dtype=torch.float64)
    level = CorrelationLoss(50, width)(x, y, everyone(x))
    assert level == pytest.approx(-0.44, abs=0.02)
    assert shuffled_correlation(x, x, everyone(x)) == pytest.approx(0.44, abs=0.02)


def test_momentum_uses_earlier_batches_without_gradient_to_them() -> None:
    width, steps = 8, 60
    x, y = correlated_views(rows=16 * steps, width=width)
    whole = CorrelationLoss(1, width)(x, y, everyone(x))
    smooth = CorrelationLoss(1, width, momentum=0.95)
    parts = [smooth(a.requires_grad_(), b, everyone(a)) for a, b in zip(x.split(16, 1), y.split(16, 1), strict=True)]
    single = CorrelationLoss(1, width)(x[:, :16], y[:, :16], everyone(x[:, :16]))
    assert parts[0].item() == pytest.approx(single.item(), abs=1e-9)
    assert abs(parts[-1] - whole) < abs(single - whole) / 2
    parts[-1].backward()
    before, last = smooth.state_dict(), parts[-1]
    smooth.eval()(x[:, :16], y[:, :16], everyone(x[:, :16]))
    assert all(torch.equal(before[key], value) for key, value in smooth.state_dict().items())
    assert last.isfinite()


def test_momentum_ignores_steps_with_fewer_than_two_rows() -> None:
    """Such a step has no loss, no gradient and no effect on later steps, whether it is the first one or not."""
    x, y = correlated_views(rows=30, width=3, views=2)
    none, one = torch.zeros(10, dtype=torch.bool), torch.arange(10) == 4
    with_gaps, without = (CorrelationLoss(2, 3, momentum=0.7) for _ in range(2))
    for number, (a, b) in enumerate(zip(x.split(10, 1), y.split(10, 1), strict=True)):
        for few in (none, one):
            before = {key: value.clone() for key, value in with_gaps.state_dict().items()}
            views = a.clone().requires_grad_()
            loss = with_gaps(views, b, few)
            loss.backward()
            assert loss == 0
            assert views.grad is not None
            assert (views.grad == 0).all()
            assert all(torch.equal(before[key], value) for key, value in with_gaps.state_dict().items())
        assert with_gaps(a, b, everyone(a)) == without(a, b, everyone(a))
        assert with_gaps.steps == number + 1


def test_momentum_equals_its_definition() -> None:
    x, y = correlated_views(rows=24, width=3, views=2)
    loss, running = CorrelationLoss(2, 3, momentum=0.6), torch.zeros(3, 2, 3, 3, dtype=torch.float64)
    for step, (a, b) in enumerate(zip(x.split(8, 1), y.split(8, 1), strict=True), start=1):
        moments = gather_moments(a, b, everyone(a))
        running = 0.6 * running.float() + 0.4 * torch.stack(moments[1:])
        expected = -correlation(Moments(moments.rows, *running / (1 - 0.6**step))) / 3
        torch.testing.assert_close(loss(a, b, everyone(a)), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5, 6, 7, 8], [7, 1, 4, 2, 8], [3], []], ids=len)
def test_chance_level_pairs_each_counted_row_with_the_previous_one(rows: list[int]) -> None:
    x, y = correlated_views(rows=9, width=2, views=2)
    counted = torch.zeros(9, dtype=torch.bool)
    counted[rows] = True
    chosen = gather_moments(x[:, counted], y[:, counted].roll(1, 1), torch.ones(len(rows), dtype=torch.bool))
    x[:, ~counted], y[:, ~counted] = float("nan"), float("inf")
    level = shuffled_correlation(x, y, counted)
    torch.testing.assert_close(level, correlation(chosen) / 2, rtol=1e-12, atol=0)


def test_three_ranks_one_of_them_empty_equal_one_process() -> None:
    def of_rank(rank: int) -> tuple[Tensor, Tensor | None]:
        """Loss and gradient of one rank's part of uneven data."""
        x, y = correlated_views(rows=21, width=4, views=2)
        part = [slice(0, 15), slice(15, 21), slice(21, 21)][rank]
        x, y = x[:, part].requires_grad_(), y[:, part]
        loss = CorrelationLoss(2, 4)(x, y, everyone(x))
        loss.backward()
        return loss.detach(), x.grad

    parts = in_ranks(3, of_rank)
    x, y = correlated_views(rows=21, width=4, views=2)
    x.requires_grad_()
    loss = CorrelationLoss(2, 4)(x, y, everyone(x))
    loss.backward()
    assert x.grad is not None
    for part, _ in parts:
        torch.testing.assert_close(part, loss.detach(), rtol=0, atol=1e-14)
    # Each rank's gradient is that of the sum over ranks of their (equal) losses; DDP then takes the mean.
    gradient = torch.cat([gradient for _, gradient in parts], 1) / 3
    torch.testing.assert_close(gradient, x.grad, rtol=0, atol=1e-14)


def test_a_covariance_that_is_not_positive_definite_gives_nan_not_an_exception() -> None:
    """As its failure is not read on the host, which would wait for a GPU in every step."""
    one = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    assert correlation(Moments(torch.tensor(9.0), -one, one, one / 2)).isnan()
    assert float(correlation(Moments(torch.tensor(9.0), one, one, one / 2), ridge=0.0)) == pytest.approx(1.5, abs=1e-4)
