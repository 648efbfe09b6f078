"""CSV as spreadsheets and programs of any country write it."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusttune.data.sources import Table
from robusttune.errors import RobustTuneError

ROWS = [["soup, hot; good", "a"], ["pie\twith | all", "b"]]


def read(path: Path, content: str, name: str = "train.csv") -> pa.Table:
    (path / name).write_text(content, newline="")
    table = Table(train=str(path / name), image_column=None).read("train")
    assert table is not None
    return table


def written(rows: list[list[str]], delimiter: str) -> str:
    content = io.StringIO(newline="")
    csv.writer(content, delimiter=delimiter).writerows(rows)
    return content.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("sep_line", [False, True])
@pytest.mark.parametrize("name", ["train.csv", "TRAIN.CSV"])
def test_the_header_says_what_stands_between_cells(tmp_path: Path, delimiter: str, sep_line: bool, name: str) -> None:
    first = f"sep={delimiter}\r\n" if sep_line else ""
    table = read(tmp_path, first + written([["text", "label"], *ROWS], delimiter), name)
    assert table["text"].to_pylist() == [text for text, _ in ROWS]
    assert table["labels"].to_pylist() == [["a"], ["b"]]


@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), st.just("x")), min_size=1),
    st.sampled_from(",;\t|"),
)
def test_any_texts_come_back_whatever_stands_between_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    content = written([["text", "label"], *map(list, rows)], delimiter)
    table = read(tmp_path_factory.getbasetemp(), content, "any_delimiter.csv")
    assert table["text"].to_pylist() == [text if text.strip() else None for text, _ in rows]


def test_lines_are_counted_from_the_top_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(
        RobustTuneError, match="of 2 rows, 1 have not as many cells as the header .the first: line 4, 1"
    ):
        read(tmp_path, "sep=;\ntext;label\nsoup;a\npie\n")


def test_columns_without_a_name_do_not_matter(tmp_path: Path) -> None:
    """The index that pandas writes, and commas that spreadsheets leave at the end."""
    table = read(tmp_path, ",text,label,,\n0,soup,a,,\n1,pie,b,,,\n2,cake,a\n")
    assert table["text"].to_pylist() == ["soup", "pie", "cake"]
    assert table["labels"].to_pylist() == [["a"], ["b"], ["a"]]


def test_a_cell_behind_the_last_named_column_is_refused(tmp_path: Path) -> None:
    """For where a comma is not quoted the rest of a row moves there."""
    with pytest.raises(
        RobustTuneError, match="of 2 rows, 1 have not as many cells as the header .the first: line 3, 3 "
    ):
        read(tmp_path, "text,label,\nsoup,a,\nsoup, hot,a\n")


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match="names the column 'text' twice"):
        read(tmp_path, "text;label;text\nsoup;a;b\n")


def test_many_columns_are_read_in_one_pass(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(50_000)]
    table = read(tmp_path, ",".join([*names, "text", "label"]) + "\n" + ",".join(["0"] * 50_000 + ["soup", "a"]) + "\n")
    assert table.select(["id", "text", "labels"]).to_pylist() == [{"id": "1", "text": "soup", "labels": ["a"]}]
    with pytest.raises(RobustTuneError, match="has no column text, label .it has c0, c1, ") as caught:
        read(tmp_path, ",".join(names) + "\n" + ",".join(["0"] * 50_000) + "\n")
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", ["train.csv", "train.tsv.gz", "train.jsonl"])
def test_utf_16_is_known_by_its_byte_order_mark(
    tmp_path: Path, encoding: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As Excel writes "Unicode text", with tabs and Windows' line ends."""
    rows = [["süße Suppe 🍲", "ä"], ["two\nlines", "b"]]
    text = "\r\n".join(json.dumps({"text": text, "label": label}) for text, label in rows)
    content = (text if "json" in name else written([["text", "label"], *rows], "\t")).encode(encoding)
    content = content if encoding == "utf-16" else codecs.BOM_UTF16_BE + content
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with caplog.at_level("INFO"):
        table = Table(train=str(tmp_path / name), image_column=None).read("train")
    assert table is not None
    assert table["text"].to_pylist() == [text for text, _ in rows]
    assert table["labels"].to_pylist() == [["ä"], ["b"]]
    assert "json" in name or r"the delimiter '\t', UTF-16" in caplog.text
