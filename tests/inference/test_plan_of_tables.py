"""The parts of a prediction, the share of a job, and the columns that are written."""

from __future__ import annotations

import pyarrow as pa
import pytest

from robusttune.errors import RobustTuneError
from robusttune.inference.tables.kept import chosen_columns, inferred_types
from robusttune.inference.tables.plan import Shard, parts_of
from robusttune.inference.tables.results import ResultColumns


@pytest.mark.parametrize(("jobs", "processes"), [(1, 1), (3, 1), (1, 4), (5, 2), (40, 3)])
def test_every_part_belongs_to_one_process(jobs: int, processes: int) -> None:
    """Also if jobs have different numbers of processes."""
    parts = parts_of(237, 10)
    found = []
    for number in range(1, jobs + 1):
        own = processes + number % 2
        for rank in range(own):
            share = Shard(number, jobs).parts(parts, rank, own)
            assert share == sorted(share)
            found += share
    assert sorted(found) == parts
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(237))


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "1/0", "-1/4", "1.5/2", "", "1/99999999999"])
def test_a_share_that_does_not_exist(text: str) -> None:
    with pytest.raises(RobustTuneError, match=r"--shard is .*: give number/total, from 1/16 to 16/16 for 16 jobs"):
        Shard.parse(text)


@pytest.mark.parametrize("top_k", [0, -1, 3])
def test_more_classes_than_there_are(top_k: int) -> None:
    with pytest.raises(RobustTuneError, match=f"--top_k is {top_k}, and there are 2 classes: give 1 to all"):
        ResultColumns(["a", "b"], False, top_k)


def test_a_column_with_the_name_of_another() -> None:
    with pytest.raises(RobustTuneError, match="the input has a column 'p_a', as the predictions have: rename it"):
        ResultColumns(["a", "b"], False, None, {"p_a": pa.string()})
    assert "p_a" in ResultColumns(["a", "b"], False, 1, {"p_a": pa.string()}).schema.names


def test_columns_that_are_given_wrongly() -> None:
    with pytest.raises(RobustTuneError, match="--columns names 'price' twice: name each column once"):
        chosen_columns("price, price", ["price"], [])
    with pytest.raises(RobustTuneError, match="the input has no column 'prize' .it has 'price'.: correct --columns"):
        chosen_columns(["prize"], ["price"], [])
    assert chosen_columns(["a,b", "all"], ["all", "a,b"], []) == ["a,b", "all"]


def test_types_of_columns_without_types() -> None:
    rows = [{"a": None, "b": 1, "c": [1], "d": "x"}] * 5000 + [{"a": None, "b": 2.5, "c": ["x"], "d": None}]
    found = inferred_types(rows, ["a", "b", "c", "d"])
    assert found == {"a": pa.string(), "b": pa.float64(), "c": pa.string(), "d": pa.string()}
