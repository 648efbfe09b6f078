"""Bytes, against those counted by hand."""

from __future__ import annotations

import torch
from fakes import random_batch
from torch import nn
from torch.optim import SGD, AdamW

from robusttune.planning.memory import batch_bytes, gradient_bytes, optimizer_bytes, saved_activations, weight_bytes

B = 5


def test_activations_of_a_tiny_network() -> None:
    """The input, and what comes out of the ReLU, which both it and the next layer need; no weights."""
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    with saved_activations(network) as saved:
        network(torch.randn(B, 8)).sum()
    assert saved.bytes == 4 * B * (8 + 16)


def test_what_needs_no_gradient_is_not_kept() -> None:
    frozen, trained = nn.Linear(8, 16).requires_grad_(False), nn.Linear(16, 3)
    with saved_activations(nn.ModuleList([frozen, trained])) as saved:
        trained(frozen(torch.randn(B, 8))).sum()
    assert saved.bytes == 4 * B * 16


def test_a_view_keeps_all_that_it_is_of() -> None:
    whole = torch.randn(100, 8)
    layer = nn.Linear(8, 1)
    with saved_activations(layer) as saved:
        layer(whole[:3]).sum() + layer(whole[50:60]).sum()
    assert saved.bytes == whole.nbytes


def test_weights_gradients_and_the_state_of_optimisers() -> None:
    network = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 3))
    network[0].requires_grad_(False)
    numbers, trained = 8 * 16 + 16 + 16 * 3 + 3, 16 * 3 + 3
    optimizers = [AdamW(network[1].parameters()), SGD(network[1].parameters(), lr=0.1)]
    assert gradient_bytes(network) == optimizer_bytes(optimizers[0]) == 0
    network(torch.randn(B, 8)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    assert weight_bytes(network) == 4 * numbers
    assert gradient_bytes(network) == 4 * trained
    assert optimizer_bytes(optimizers[0]) == 2 * 4 * trained + 2 * 4  # two moments, and the step of each tensor
    assert optimizer_bytes(optimizers[1]) == 0


def test_a_batch_weighs_what_its_tensors_weigh() -> None:
    size, side, classes = 6, 32, 3
    batch = random_batch(size, classes, side, complete=True)
    assert batch_bytes(batch) == size * (3 * side * side + 7 * (8 + 1) + 1 + 1 + 8 + 1)
