"""Operations, against formulas by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from robusttune.planning import flops as flops_module
from robusttune.planning.flops import counted_flops

B, N, D, H = 5, 7, 16, 2


def test_a_linear_layer_forward_and_backward() -> None:
    """2 B i o forward; as many for the gradient of the weights, and for that of the inputs where it is wanted."""
    first, second = nn.Linear(8, 16), nn.Linear(16, 4)
    with counted_flops() as flops:
        loss = second(first(torch.randn(B, 8))).sum()
        flops.backward = True
        loss.backward()
    assert flops.total == flops.trained == 2 * B * (2 * 8 * 16 + 3 * 16 * 4)
    assert flops.frozen == 0


def test_what_records_no_gradient_is_distinguished() -> None:
    frozen, trained = nn.Linear(8, 16).requires_grad_(False), nn.Linear(16, 4)
    with counted_flops() as flops:
        with torch.no_grad():
            features = frozen(torch.randn(B, 8))
        loss = trained(features).sum()
        flops.backward = True
        loss.backward()
    assert flops.frozen == 2 * B * 8 * 16
    assert flops.trained == 2 * B * 2 * 16 * 4


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_counts_on_the_cpu(known: bool, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores and weighted sums: 2 x 2 B n^2 d, whether or not torch knows of its own kernel."""
    if not known:
        monkeypatch.setattr(flops_module, "flop_registry", {})
    query, key, value = torch.randn(3, B, H, N, D // H)
    mask = torch.ones(N, N, dtype=torch.bool) if masked else None
    with torch.no_grad(), counted_flops() as flops:
        functional.scaled_dot_product_attention(query, key, value, mask)
    assert flops.total == flops.frozen == 2 * 2 * B * N * N * D


def test_a_compiled_module_counts() -> None:
    compiled = torch.compile(nn.Linear(8, 16), backend="eager")
    compiled(torch.randn(B, 8))
    with counted_flops() as flops:
        compiled(torch.randn(B, 8))
    assert flops.total == 2 * B * 8 * 16
