"""The user's own tables."""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from fakes import write_table
from hypothesis import given
from hypothesis import strategies as st

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
    expected = {"id": "7", "image": str(tmp_path / "pictures/a.png"), "text": "t", "labels": ["x"], "more_images": None}
    assert table.to_pylist() == [expected]
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
        ('{"text": "t", "label": "x"}\n{"text": ', {}, "of 2 rows, 1 are not JSON .the first: line 2, "),
        ("[1]\n", {}, "of 1 rows, 1 are not JSON objects .the first: line 1"),
        ("[" * 100_000, {}, "are not JSON .the first: line 1"),
        ('{"image": "", "text": "\\ud800", "label": "x"}\n', {}, "have no text in the column text"),
        ("", {}, "has no rows"),
        ('{"image": "", "text": "t"}\n', {}, "has no column label"),
        ('{"words": "t", "label": "x"}\n', {}, "has no column image, text"),
        ('{"text": "t", "photo": "a.png", "label": "x"}\n', {}, "has no column image .it has label, photo, text"),
        ('{"image": "", "text": "t", "label": "x"}\n', {"id_column": "key"}, "has no column key"),
        (
            '{"image": "", "text": {"a": 1}, "label": "x"}\n',
            {},
            "have no text in the column text .the first: line 1, {'a': 1}",
        ),
        ('{"image": "", "text": "t", "label": ["x"]}\n', {}, "1 have a list as label .*set data.source.multilabel"),
        (
            '{"image": "", "text": "t", "label": ["x", 3, " "]}\n',
            {"multilabel": True},
            "1 have an entry that is no class in the list of label .the first: line 1, .'x', 3, ' '.",
        ),
        ('{"image": "", "text": "t", "label": "x", "id": " "}\n', {"id_column": "id"}, "1 have no id"),
        (
            '{"image": "", "text": "t", "label": "x", "id": 1}\n' * 2,
            {"id_column": "id"},
            "1 repeat an id .the first: line 2, '1' of line 1",
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,text,label\n,a,b,c\n,a,x\n\n,a\n",
            "of 3 rows, 2 have not as many cells as the header .the first: line 2, 4",
        ),
        ('image,text,label\n,a,x\n,"a', "of 2 rows, 1 are not CSV .the first: line 3, unexpected end"),
        ("image,text,text\n", "train.csv names the column 'text' twice"),
        ("\n\n", "the first line of .*train.csv is blank"),
    ],
)
def test_broken_csv_is_named_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(content)
    with pytest.raises(RobustTuneError, match=message):
        Table(train=str(path)).read("train")


def test_all_bad_rows_are_counted_by_what_is_wrong(tmp_path: Path) -> None:
    good = '{"image": "a.png", "text": "t", "label": "x"}\n'
    lines = [good, "{\n", '{"image": {"a": 1}, "text": "t", "label": "x"}\n', good, "}\n", '{"label": {}}\n', good]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(lines))
    message = (
        "of 7 rows, 2 are not JSON .the first: line 2.* 1 have neither a path, a URL nor an image in the column .* .*"
        " 1 have no class as label "
    )
    with pytest.raises(RobustTuneError, match=message):
        Table(train=str(path)).read("train")


def rows_or_error(path: Path, content: bytes, rows: int | None = None) -> None:
    path.write_bytes(content)
    for multilabel in (False, True):
        with suppress(RobustTuneError):
            table = Table(train=str(path), multilabel=multilabel).read("train")
            assert table is not None
            assert rows is None or len(table) == rows


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
json_rows = st.fixed_dictionaries({"image": json_values, "text": json_values, "label": json_values})


@given(st.lists(json_rows, min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_any_json_gives_all_its_rows_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], newline: str
) -> None:
    content = newline.join(json.dumps(row) for row in rows).encode()
    rows_or_error(tmp_path_factory.getbasetemp() / "any.jsonl", content, len(rows))


@given(st.lists(st.tuples(*[st.text(st.characters(codec="utf-8"))] * 3), max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_any_csv_gives_all_its_rows_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], newline: str
) -> None:
    content = io.StringIO(newline="")
    csv.writer(content, lineterminator=newline).writerows([["image", "text", "label"], *rows])
    rows_or_error(tmp_path_factory.getbasetemp() / "any.csv", content.getvalue().encode(), len(rows))


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
@given(data=st.data())
def test_any_bytes_give_rows_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, ending: str, data: st.DataObject
) -> None:
    """Random bytes, and good files with some bytes changed, left out or put in."""
    path = tmp_path_factory.getbasetemp() / f"bytes{ending}"
    content = bytearray(write(path.parent, ending).read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        start, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 8))
        content[start : start + length] = data.draw(st.binary(max_size=8))
    rows_or_error(path, bytes(content))
    rows_or_error(path, data.draw(st.binary(max_size=200)))


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
        ({"train": __file__}, "test_table.py is no table .*.jsonl, .*.csv, .*.parquet"),
    ],
)
def test_wrong_paths_are_found_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        Table(**settings)
