"""Masks as files: by id, and the tables of codes that are in circulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from robusttune.corruption.missing import draw_mask
from robusttune.data import Missing
from robusttune.data.mask_files import read_mask, write_mask
from robusttune.errors import RobustTuneError

IDS = ["c", "a", "b", "d"]
CODES = {0: "complete", 1: "no_text", 2: "no_image"}


def test_parquet_comes_back(tmp_path: Path) -> None:
    mask = draw_mask(IDS, Missing(rate=0.5))
    write_mask(tmp_path / "deep/test.parquet", mask, {"protocol": "x"})
    found = read_mask(tmp_path / "deep/test.parquet", IDS[::-1], None, "test")
    assert found.hash == mask.hash
    metadata = pa.parquet.read_schema(tmp_path / "deep/test.parquet").metadata
    assert metadata[b"hash"].decode() == mask.hash
    assert metadata[b"protocol"] == b"x"
    part = read_mask(tmp_path / "deep/test.parquet", ["b", "a"], None, "test")  # of a subset of the samples
    assert part.by_id() == {i: mask.by_id()[i] for i in ("a", "b")}


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_codes_are_by_row(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    path, table = tmp_path / f"table{suffix}", torch.tensor([0, 1, 2, 0], dtype=dtype)
    if suffix == ".pt":
        torch.save(table, path)
    else:
        np.save(path, table.numpy())
    assert read_mask(path, IDS, CODES, "test").by_id() == {
        "c": (True, True),
        "a": (True, False),
        "b": (False, True),
        "d": (True, True),
    }
    swapped = read_mask(path, IDS, {0: "complete", 1: "no_image", 2: "no_text"}, "test").by_id()
    assert (swapped["a"], swapped["b"]) == ((False, True), (True, False))


REFUSED: dict[str, tuple[Any, list[str], dict[int, str] | None, str]] = {
    "another length": (torch.zeros(3), IDS, CODES, r"is a table of shape \(3,\), and the split has 4 rows"),
    "a matrix": (torch.zeros(4, 2), IDS, CODES, r"shape \(4, 2\)"),
    "an unknown code": (
        torch.tensor([0.0, 1.0, 3.0, 3.0]),
        IDS,
        CODES,
        r"codes that data.missing's codes do not contain \(3 2 times\)",
    ),
    "a code between": (torch.tensor([0.0, 0.5, 1.0, 2.0]), IDS, CODES, r"do not contain \(0.5 1 times\)"),
    "no meanings": (torch.zeros(4), IDS, None, r"is a table of codes: say what they mean, \{0: complete"),
    "two codes of a meaning": (torch.zeros(4), IDS, {0: "complete", 1: "complete"}, "two codes .* mean the same"),
    "no table": ({"a": 1}, IDS, CODES, "is no table of numbers|is a table of shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_tables_are_refused(tmp_path: Path, case: str) -> None:
    table, ids, codes, message = REFUSED[case]
    torch.save(table, tmp_path / "table.pt")
    with pytest.raises(RobustTuneError, match=message):
        read_mask(tmp_path / "table.pt", ids, codes, "test")


def test_a_table_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save(Evil(), tmp_path / "table.pt")
    with pytest.raises(RobustTuneError, match="is no table of numbers"):
        read_mask(tmp_path / "table.pt", IDS, CODES, "test")
    assert not (tmp_path / "ran").exists()


COLUMNS: dict[str, list[Any]] = {"id": IDS, "image": [True] * 4, "text": [True] * 4}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (COLUMNS | {"id": ["c", "a", "b", "x"]}, "lacks 1 of 4 samples, the first is 'd'"),
        ({"id": IDS, "image": [True] * 4}, "needs the columns id"),
        (COLUMNS | {"image": [1, 0, 1, 1]}, "needs the columns id"),
        (COLUMNS | {"image": [True, None, True, True]}, "is ambiguous"),
        ({name: [*values, values[0]] for name, values in COLUMNS.items()}, "is ambiguous"),
    ],
)
def test_other_parquet_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pa.parquet.write_table(pa.table(columns), tmp_path / "mask.parquet")
    with pytest.raises(RobustTuneError, match=message):
        read_mask(tmp_path / "mask.parquet", IDS, None, "test")


def test_codes_of_a_table_by_id_are_refused(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.parquet", draw_mask(IDS, Missing(rate=0.5)), {})
    with pytest.raises(RobustTuneError, match="is a table by id, and has no codes: leave out data.missing's codes"):
        read_mask(tmp_path / "mask.parquet", IDS, CODES, "test")


@pytest.mark.parametrize("name", ["none.parquet", "mask.csv"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "mask.csv").write_text("0,1,2")
    with pytest.raises(RobustTuneError, match=r"is no \.parquet, \.pt, \.npy file"):
        read_mask(tmp_path / name, IDS, CODES, "test")


def test_a_mask_of_another_split_is_refused(tmp_path: Path) -> None:
    """Ids that are row numbers would fit any split."""
    write_mask(tmp_path / "train.parquet", draw_mask(IDS, Missing(rate=0.5)), {"split": "train"})
    assert read_mask(tmp_path / "train.parquet", IDS, None, "train")
    with pytest.raises(RobustTuneError, match="is the mask of the train split, not of test: give that of test"):
        read_mask(tmp_path / "train.parquet", IDS, None, "test")


def test_an_altered_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.parquet"
    write_mask(path, draw_mask(IDS, Missing(rate=0.5)), {})
    table = pa.parquet.read_table(path)
    flipped = pa.array([not shown for shown in table["image"].to_pylist()])
    pa.parquet.write_table(table.set_column(1, "image", flipped), path)
    with pytest.raises(RobustTuneError, match="was altered: its mask is .*: write it again"):
        read_mask(path, IDS, None, "test")
