"""Metrics, intervals, fits and tables of two processes, each with its own samples, are those of one process."""

from __future__ import annotations

import tempfile
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import torch
from fakes import FACTS
from torch import Tensor
from two_ranks import in_two_ranks

from robusttune.corruption.conditions import Conditions
from robusttune.errors import RobustTuneError
from robusttune.evaluation import ConditionMetrics, score_store
from robusttune.evaluation.tables import class_rows, sample_tables
from robusttune.models.temperatures import VIEWS, Temperatures
from robusttune.models.thresholds import Thresholds
from robusttune.ranks import alone, gather, total_over_ranks, world_size

SAMPLES, CLASSES = 90, ["a", "b", "c", "d", "e", "f", "g"]
CONDITIONS = Conditions(["complete", "no_image", "missing_both_40"]).with_views(VIEWS)
KINDS = ("one label", "several labels", "base and new")


class Found(NamedTuple):
    """What an evaluation gives; the table has the samples of all ranks."""

    metrics: dict[str, float]
    intervals: dict[str, dict[str, tuple[float, float]]]
    temperatures: list[float]
    thresholds: Tensor | None
    classes: list[dict[str, Any]]
    table: list[dict[str, Any]]
    picked: list[list[str]]


def logits_and_labels(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(len(CLASSES), (SAMPLES,), generator=generator)
    logits = 3 * torch.randn(len(CONDITIONS.views), SAMPLES, len(CLASSES), generator=generator)
    logits += 3 * torch.nn.functional.one_hot(label, len(CLASSES))
    if kind == "several labels":
        label = (torch.rand(SAMPLES, len(CLASSES), generator=generator) < 0.3).float()
    return logits, label, torch.rand(SAMPLES, 2, generator=generator) < 0.8


def evaluated(kind: str, rows: list[int], batch_size: int = 16) -> Found:
    """Evaluate some rows on this rank."""
    logits, label, present = logits_and_labels(kind)
    names = CLASSES if kind != "base and new" else CLASSES[:4]
    facts = FACTS._replace(class_names=names, class_frequencies=[0.1] * len(names), multilabel=kind == "several labels")
    metrics = ConditionMetrics(facts, CONDITIONS, CLASSES)
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        unknown = logits[:, some] - 1 if kind == "base and new" else None
        metrics.update([f"id {row}" for row in some], label[some], present[some], logits[:, some], unknown)

    def blocks(number: int) -> Any:
        return metrics.blocks_of_view(VIEWS[number], number)

    temperatures, thresholds = Temperatures().fit(blocks), None
    if kind == "several labels":
        thresholds = Thresholds(len(CLASSES)).fit(blocks)
        metrics.cuts = torch.cat([thresholds, thresholds[:1]]).logit()
    values, intervals = metrics.compute(), metrics.intervals()
    tables = gather([*sample_tables(metrics)])
    table = pa.concat_tables(table for of_rank in tables for table in of_rank if len(table))
    picked = metrics.picked([f"id {row}" for row in (0, 1, SAMPLES - 1)], conditions=2)
    return Found(
        values,
        intervals,
        temperatures,
        thresholds,
        [*class_rows(metrics.measured, CLASSES)],
        sorted(table.to_pylist(), key=lambda row: (row["condition"], row["id"])),
        [sorted(of_condition) for of_condition in picked],
    )


def assert_same(found: Found, expected: Found) -> None:
    """Sums of floating point numbers may differ in the last digits, everything else must not."""
    assert found._replace(intervals={}, temperatures=[], thresholds=None) == expected._replace(
        intervals={}, temperatures=[], thresholds=None
    )
    assert found.temperatures == pytest.approx(expected.temperatures, rel=1e-9)
    for condition, row in expected.intervals.items():
        assert {*found.intervals[condition]} == {*row}
        for metric, ends in row.items():
            assert found.intervals[condition][metric] == pytest.approx(ends, rel=1e-9)
    if expected.thresholds is not None:
        assert found.thresholds is not None
        assert torch.equal(found.thresholds, expected.thresholds)


@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_the_number_of_processes(kind: str) -> None:
    """Also with samples that both ranks have, because they fill a batch, and with a rank that has none."""
    expected = evaluated(kind, [*range(SAMPLES)])
    assert len(expected.table) == SAMPLES * len(CONDITIONS.all)
    assert any(value != 1 for value in expected.temperatures)
    for shares in ([[*range(0, SAMPLES, 2)], [*range(1, SAMPLES, 2), 0, 4]], [[], [*range(SAMPLES)]]):
        for found in in_two_ranks(lambda rank, shares=shares: evaluated(kind, shares[rank], 7)):  # type: ignore[misc]
            assert_same(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_in_a_file_give_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = evaluated(kind, [*range(SAMPLES)])
    monkeypatch.setattr(score_store, "IN_MEMORY", 40_000)  # some of the batches stay in memory
    monkeypatch.setattr(score_store, "AT_ONCE", 200)  # two batches a block
    assert_same(evaluated(kind, [*range(SAMPLES)]), expected)


def test_no_room_for_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_store, "IN_MEMORY", 0)

    def fail(**_: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    with pytest.raises(RobustTuneError, match=r"do not fit into .* \(No space left on device\): set TMPDIR"):
        evaluated("one label", [*range(SAMPLES)])


def test_predictions_that_are_not_finite_are_refused_on_all_ranks() -> None:
    """The message counts those of all ranks, and names the first by its id."""

    def compute(rank: int) -> dict[str, float]:
        metrics = ConditionMetrics(FACTS, Conditions())
        logits = torch.zeros(3, 10, 3)
        logits[:, 3 + rank] = torch.nan
        ids = [f"{10 * rank + row:02}" for row in range(10)]
        metrics.update(ids, torch.zeros(10, dtype=torch.int64), torch.ones(10, 2, dtype=torch.bool), logits)
        return metrics.compute()

    first, second = in_two_ranks(compute)
    assert "the predictions for 2 of 20 samples are not finite, the first is '03': check" in str(first)
    assert str(first) == str(second)
    assert second.reported_elsewhere


def test_nothing_is_sent_alone() -> None:
    def total(rank: int) -> tuple[int, int, int]:
        with alone():
            inside, size = int(total_over_ranks(torch.tensor(rank + 1))), world_size()
        return inside, size, int(total_over_ranks(torch.tensor(rank + 1)))

    assert in_two_ranks(total) == [(1, 2, 3), (2, 2, 3)]
