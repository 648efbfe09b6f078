"""What two processes tell each other."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from two_ranks import in_two_ranks

from robusttune.corruption.conditions import Conditions
from robusttune.errors import RobustTuneError
from robusttune.evaluation import ConditionMetrics
from robusttune.models import CorrelationLoss
from robusttune.ranks import RANK_VARIABLES, any_over_ranks, is_rank_zero, leave, on_rank_zero, sum_over_ranks
from robusttune.tasks.losses import mean_over_ranks
from robusttune.types import Facts

FACTS = Facts(["a", "b", "c"], [0.5, 0.3, 0.2], False)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "0", "LOCAL_RANK": "1"}, True),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_rank_zero_is_known_before_processes_are_connected(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_rank_zero() == expected


def test_a_flag_of_one_is_known_to_all() -> None:
    assert in_two_ranks(lambda rank: [any_over_ranks(rank == 1), any_over_ranks(False)]) == [[True, False]] * 2


def test_what_rank_zero_finds_is_given_to_all() -> None:
    assert in_two_ranks(lambda rank: on_rank_zero(f"from {rank}", list)) == [["from 0", "from 1"]] * 2


def test_a_problem_is_raised_on_all_and_reported_by_one() -> None:
    def refuse(values: list[int]) -> None:
        raise RobustTuneError(f"{sum(values)} things are wrong")

    first, second = in_two_ranks(lambda rank: on_rank_zero(rank + 1, refuse))
    assert str(first) == str(second) == "3 things are wrong"
    assert not first.reported_elsewhere
    assert second.reported_elsewhere


def test_what_rank_zero_alone_could_not_do_ends_all() -> None:
    def fail(_: list[int]) -> None:
        raise PermissionError(13, "Permission denied", "report.json")

    first, second = in_two_ranks(lambda rank: on_rank_zero(rank, fail))
    assert isinstance(first, PermissionError)
    assert isinstance(second, RobustTuneError)
    assert second.reported_elsewhere


def test_no_thread_of_a_rank_that_left_outlives_it() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def count(rank: int) -> tuple[int, int]:
        on_rank_zero(rank, sum)
        before = threads()
        leave()
        deadline = time.monotonic() + 10  # a thread that was joined is listed for a moment longer
        while threads() > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        return before, threads()

    for before, after in in_two_ranks(count):
        assert before > after == 1


def rows_of(rank: int, share: str, count: int) -> slice:
    """Which of ``count`` rows a rank has."""
    cut = {"half": count // 2, "uneven": count - 1, "all": count}[share]
    return slice(0, cut) if rank == 0 else slice(cut, count)


def losses(x: Tensor, y: Tensor, values: Tensor, pairs: Tensor, counted: Tensor) -> list[Tensor]:
    """Both losses, and their gradients summed over the rows, as DDP would average them over the ranks."""
    weight = torch.eye(3, dtype=torch.float64, requires_grad=True)
    correlation = CorrelationLoss(1, 3)(x @ weight, y @ weight, pairs)
    mean = mean_over_ranks(values * weight.sum(), counted)
    (correlation + mean).backward()
    assert weight.grad is not None
    return [correlation.detach(), mean.detach(), weight.grad]


def test_losses_of_two_halves_are_those_of_the_whole() -> None:
    """Also where a rank has one row, none at all, or none with both modalities; gradients averaged as DDP does it."""
    torch.manual_seed(0)
    x, y, values = torch.randn(1, 12, 3).double(), torch.randn(1, 12, 3).double(), torch.rand(12).double()
    counted = torch.ones(12, dtype=torch.bool)

    def part(rank: int, share: str, pairs: Tensor) -> list[Tensor]:
        rows = rows_of(rank, share, 12)
        found = losses(x[:, rows], y[:, rows], values[rows], pairs[rows], counted[rows])
        return [found[0], *(sum_over_ranks(tensor) / 2 for tensor in found[1:])]

    for pairs in (counted, torch.arange(12) < 6, ~counted):
        whole = losses(x, y, values, pairs, counted)
        for share in ("half", "uneven", "all"):
            for found in in_two_ranks(partial(part, share=share, pairs=pairs)):
                torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("multilabel", [False, True])
def test_metrics_of_two_ranks_are_those_of_one(multilabel: bool) -> None:
    """With a sample that both have, since it fills up a batch, and with a rank that has none."""
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 3)
    label = torch.rand(7, 3).round() if multilabel else torch.arange(7) % 3

    def compute(rows: list[int]) -> dict[str, float]:
        metrics = ConditionMetrics(FACTS._replace(multilabel=multilabel), Conditions())
        if rows:
            present = torch.ones(len(rows), 2, dtype=torch.bool)
            metrics.update([str(row) for row in rows], label[rows], present, logits[:, rows])
        return metrics.compute()

    whole = compute(list(range(7)))
    for shares in ([[0, 2, 4, 6], [1, 3, 5, 0]], [list(range(7)), []]):
        results = in_two_ranks(lambda rank, shares=shares: compute(shares[rank]))  # type: ignore[misc]
        assert results == [whole] * 2
