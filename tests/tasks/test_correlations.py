"""Canonical correlations of test samples, layer by layer, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import random_batch
from torch import Tensor
from two_ranks import in_two_ranks

from robusttune.models import Fused
from robusttune.tasks.correlations import LayerCorrelations

NOISE = (0.1, 1.0, 5.0)  # of each layer: the less of it, the better the modalities agree


def plain(samples: int = 300, width: int = 2) -> tuple[Tensor, Tensor]:
    """Views (M, N, c) of which layers agree ever less."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(len(NOISE), samples, width))
    noise = rng.normal(size=first.shape) * np.array(NOISE)[:, None, None]
    second = (first + noise) @ rng.normal(size=(len(NOISE), width, width))
    return torch.from_numpy(first), torch.from_numpy(second)


def expected(first: Tensor, second: Tensor) -> list[float]:
    """Canonical correlations are cosines of the angles between what the columns span."""
    found = []
    for x, y in zip(first.numpy(), second.numpy(), strict=True):
        bases = [np.linalg.qr(view - view.mean(0))[0] for view in (x, y)]
        found.append(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).mean())
    return found


def added(pairs: LayerCorrelations, first: Tensor, second: Tensor, rows: list[int], start: int = 0) -> None:
    """Complete samples, of which the fused rows come after ``start`` others."""
    batch = random_batch(len(rows), complete=True)
    batch.sample_id = [f"{row:04}" for row in rows]
    others = torch.full((len(first), start, first.shape[2]), float("nan"))
    views = [torch.cat([others, view[:, rows]], 1) for view in (first, second)]
    pairs.update(batch, Fused(torch.zeros(0), *views), start)


def test_layers_and_chance() -> None:
    first, second = plain()
    pairs = LayerCorrelations()
    order = np.random.default_rng(1).permutation(300).tolist()
    for start in range(0, 300, 70):
        added(pairs, first, second, order[start : start + 70], start=start % 3 * 5)
    found = pairs.compute()
    assert found is not None
    assert found["layers"] == pytest.approx(expected(first, second), abs=0.01)  # what a ridge takes away
    assert found["layers"] == sorted(found["layers"], reverse=True)
    assert found["shuffled"] == pytest.approx(expected(first, second.roll(1, 1)), abs=0.01)
    assert max(found["shuffled"]) < 0.2


def test_a_sample_that_is_seen_twice_counts_once() -> None:
    first, second = plain(40)
    once, twice = LayerCorrelations(), LayerCorrelations()
    added(once, first, second, [*range(40)])
    added(twice, first, second, [*range(20), 3, 3])
    added(twice, first, second, [*range(39, 10, -1)])
    assert twice.compute() == once.compute()


def test_samples_that_lack_a_modality_take_no_part() -> None:
    first, second = plain(6)
    pairs = LayerCorrelations()
    spoiled = [view.clone().index_fill(1, torch.tensor([1, 2, 3]), float("nan")) for view in (first, second)]
    pairs.update(random_batch(6), Fused(torch.zeros(0), *spoiled), 0)  # which has rows like that
    alone = LayerCorrelations()
    added(alone, first, second, [0, 4, 5])
    assert pairs.compute() == alone.compute()


def test_too_few_pairs_are_none() -> None:
    first, second = plain(4)
    assert LayerCorrelations().compute() is None
    one = LayerCorrelations()
    added(one, first, second, [2, 2])
    assert one.compute() is None
    added(one, first, second, [3])
    assert one.compute() is not None


def test_two_ranks_find_what_one_does() -> None:
    first, second = plain(30)

    def found(rows: list[int]) -> dict[str, list[float]] | None:
        pairs = LayerCorrelations()
        added(pairs, first, second, rows)
        return pairs.compute()

    whole = found([*range(30)])
    for shares in ([[*range(0, 30, 2)], [*range(1, 30, 2), 0]], [[*range(30)], []]):
        results = in_two_ranks(lambda rank, shares=shares: found(shares[rank]))  # type: ignore[misc]
        assert results == [whole] * 2
