"""The user's own tables."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from fakes import write_table

from robusttune.data.sources import Table
from robusttune.errors import RobustTuneError

ROWS: list[dict[str, Any]] = [
    {"image": "a.png", "text": "one, two", "label": "x"},
    {"image": "", "text": "line\nbreak \u2028 here", "label": "y"},
    {"image": "sub/b.png", "text": "  ", "label": "x"},
    {"image": "c.png", "text": "NA", "label": "1"},
]


def write(folder: Path, ending: str) -> Path:
    path = folder / f"train{ending}"
    if ending == ".jsonl":
        return write_table(folder, "train", ROWS)
    if ending == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_formats_agree(tmp_path: Path, ending: str) -> None:
    table = Table(train=str(write(tmp_path, ending))).read("train")
    assert table is not None
    assert table["id"].to_pylist() == ["1", "2", "3", "4"]
    assert table["image"].to_pylist() == [
        str(tmp_path / "a.png"),
        None,
        str(tmp_path / "sub/b.png"),
        str(tmp_path / "c.png"),
    ]
    assert table["text"].to_pylist() == ["one, two", "line\nbreak \u2028 here", None, "NA"]
    assert table["labels"].to_pylist() == [["x"], ["y"], ["x"], ["1"]]


def test_columns_root_and_ids_are_settings(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    path = write_table(tmp_path, "test", [{"file": "a.png", "title": "t", "class": "x", "key": 7}])
    source = Table(
        test=str(path),
        image_root=str(tmp_path / "pictures"),
        image_column="file",
        text_column="title",
        label_column="class",
        id_column="key",
    )
    table = source.read("test")
    assert table is not None
    assert table.to_pylist() == [{"id": "7", "image": str(tmp_path / "pictures/a.png"), "text": "t", "labels": ["x"]}]
    assert source.read("train") is None


def test_multilabel_takes_lists_and_separated_names(tmp_path: Path) -> None:
    rows = [{"text": "t", "label": label} for label in (["a", "b"], "a| c", "", [], None)]
    table = Table(train=str(write_table(tmp_path, "train", rows)), image_column=None, multilabel=True).read("train")
    assert table is not None
    assert table["labels"].to_pylist() == [["a", "b"], ["a", "c"], [], [], []]


def test_not_a_number_is_blank(tmp_path: Path) -> None:
    """As pandas writes a blank cell."""
    path = tmp_path / "train.jsonl"
    path.write_text('{"image": NaN, "text": NaN, "label": "x"}\n{"image": " a.png ", "text": "t", "label": NaN}\n')
    table = Table(train=str(path)).read("train")
    assert table is not None
    assert table["image"].to_pylist() == [None, str(tmp_path / "a.png")]
    assert table["text"].to_pylist() == [None, "t"]
    assert table["labels"].to_pylist() == [["x"], None]


def test_samples_to_predict_need_no_label(tmp_path: Path) -> None:
    path = write_table(tmp_path, "new", [{"text": "t"}])
    table = Table(predict=str(path), image_column=None).read("predict")
    assert table is not None
    assert table["labels"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ('{"text": "t", "label": "x"}\n{"text": ', {}, "line 2 is no JSON"),
        ("[1]\n", {}, "line 1 is no JSON object"),
        ("", {}, "has no rows"),
        ('{"image": "", "text": "t"}\n', {}, "has no column label"),
        ('{"words": "t", "label": "x"}\n', {}, "has no column image, text"),
        ('{"text": "t", "photo": "a.png", "label": "x"}\n', {}, "has no column image .it has label, photo, text"),
        ('{"image": "", "text": "t", "label": "x"}\n', {"id_column": "key"}, "has no column key"),
        ('{"image": "", "text": {"a": 1}, "label": "x"}\n', {}, "row 1: text is {'a': 1}: give a string"),
        ('{"image": "", "text": "t", "label": ["x"]}\n', {}, "row 1: label is a list: set data.source.multilabel"),
        (
            '{"image": "", "text": "t", "label": "x", "id": 1}\n' * 2,
            {"id_column": "id"},
            "rows 1 and 2 have the same id '1'",
        ),
    ],
)
def test_broken_tables_are_named_with_their_row(
    tmp_path: Path, content: str, settings: dict[str, Any], message: str
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(content)
    with pytest.raises(RobustTuneError, match=f"{path}.*{message.replace('[', '.')}"):
        Table(train=str(path), **settings).read("train")


@pytest.mark.parametrize("content", ["text,label\na,b,c\n", "text,label\na\n", 'text,label\n"a\n'])
def test_broken_csv_is_named_with_its_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(content)
    with pytest.raises(RobustTuneError, match=r"train.csv, line \d"):
        Table(train=str(path)).read("train")


def test_broken_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(RobustTuneError, match="no readable Parquet"):
        Table(train=str(path)).read("train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no table is given"),
        ({"train": "/nowhere.csv"}, "/nowhere.csv does not exist: set data.source.train"),
        ({"train": __file__}, "is no .jsonl, .csv, .parquet file"),
    ],
)
def test_wrong_paths_are_found_at_once(settings: dict[str, str], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        Table(**settings)
