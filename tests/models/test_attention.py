"""Attention in which a row may have nothing to look at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from robusttune.models.attention import attend, masked_mean, split


def test_attention_is_its_formula_over_what_is_unmasked() -> None:
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(3, n, 8, dtype=torch.float64) for n in (4, 5, 5))
    mask = torch.arange(5) < torch.tensor([[5], [2], [1]])
    q, k, v = (split(x, 1, heads=2)[0] for x in (queries, keys, values))
    actual = attend(q, k, v, mask)
    for row in range(3):
        for head in (slice(0, 4), slice(4, 8)):
            k, v = keys[row, mask[row], head], values[row, mask[row], head]
            expected = (queries[row, :, head] @ k.T / 2).softmax(1) @ v
            torch.testing.assert_close(actual[row, :, head], expected)


def by_the_formula(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """As some of torch's kernels have it: not a number where all is masked."""
    weights = queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5
    return weights.masked_fill(~mask, -torch.inf).softmax(3) @ values


@pytest.mark.parametrize("kernel", [functional.scaled_dot_product_attention, by_the_formula])
def test_a_row_without_tokens_gives_zeros_and_no_gradient(
    kernel: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functional, "scaled_dot_product_attention", kernel)
    torch.manual_seed(0)
    inputs = [torch.randn(2, 1, n, 8, requires_grad=True) for n in (4, 5, 5)]
    mask = torch.tensor([[True] * 5, [False] * 5])
    q, k, v = inputs
    told = attend(q, k, v, mask)
    assert told[0].abs().min() > 0
    assert (told[1] == 0).all()
    told.sum().backward()
    for tensor in inputs:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert (tensor.grad[1] == 0).all()


def test_a_mean_over_nothing_is_zero() -> None:
    tokens = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[True, False, True], [False] * 3])
    torch.testing.assert_close(masked_mean(tokens, mask), torch.tensor([[2.0, 3.0], [0.0, 0.0]]))
