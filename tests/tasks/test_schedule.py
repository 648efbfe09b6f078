"""The learning rate over training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from robusttune.errors import RobustTuneError
from robusttune.tasks import Schedule


@pytest.mark.parametrize("name", ["cosine", "linear", "constant_with_warmup"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_is_that_of_transformers(name: Any, warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    expected, schedule = get_scheduler(name, optimizer, round(warmup * 50), 50), Schedule(name, warmup)
    for done in range(50):
        assert schedule.factor(done, 50) == pytest.approx(expected.get_last_lr()[0])
        optimizer.step()
        expected.step()


def test_a_constant_warm_up_is_that_of_the_published_recipe() -> None:
    """The first of ten epochs at a hundredth, then the first nine of a cosine over ten."""
    schedule = Schedule("cosine", warmup=0.1, warmup_rate=0.01, every="epoch")
    expected = [0.01, *(0.5 * (1 + math.cos(math.pi * epoch / 10)) for epoch in range(9))]
    assert [schedule.factor(epoch, 10) for epoch in range(10)] == pytest.approx(expected)


@pytest.mark.parametrize("total", [5 * 532, 20 * 237, 20 * 7])
def test_mora_s_warm_up_and_half_cosine(total: int) -> None:
    """The published formula rounds the warm-up down; a tenth of the published numbers of steps is a whole number."""
    schedule, warm = Schedule("cosine", warmup=0.1), int(0.1 * total)
    rising = [step / warm for step in range(warm)]
    falling = [(1 + math.cos(math.pi * (step - warm) / (total - warm))) / 2 for step in range(warm, total + 1)]
    assert [schedule.factor(step, total) for step in range(total + 1)] == pytest.approx([*rising, *falling])
    assert schedule.factor(0, total) == 0


@pytest.mark.parametrize("changes", [{"warmup": -0.1}, {"warmup_rate": 1.1}, {"warmup": float("nan")}])
def test_shares_out_of_range(changes: dict[str, float]) -> None:
    with pytest.raises(RobustTuneError, match=f"schedule.{next(iter(changes))} is .*: give a share from 0 to 1"):
        Schedule(**changes)  # type: ignore[arg-type]
