"""Tables in every format and from every program: what is read, and what is refused in one sentence."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from robusttune.data.sources import Table
from robusttune.errors import RobustTuneError

ROWS: list[dict[str, Any]] = [
    {"text": "soup, hot; good", "label": "a", "more": 1},
    {"text": "", "label": "b", "more": 2},
    {"text": "crêpe\nwith | all", "label": "a", "more": 3},
]
TEXTS = ["soup, hot; good", None, "crêpe\nwith | all"]


def delimited(delimiter: str = ",", first: str = "") -> bytes:
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return (first + content.getvalue()).encode()


def lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def compressed(content: bytes, codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(content)
    return bytes(sink.getvalue().to_pybytes())


def excel(rows: list[dict[str, Any]], *sheets: str) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name in sheets or ("Sheet",):
        sheet = book.create_sheet(name)
        sheet.append(list(rows[0]))
        for row in rows:
            sheet.append(list(row.values()))
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def arrow(write: Callable[[pa.Table, Any], None], rows: list[dict[str, Any]] = ROWS) -> bytes:
    sink = pa.BufferOutputStream()
    write(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue().to_pybytes())


def ipc_file(table: pa.Table, sink: Any) -> None:
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def ipc_stream(table: pa.Table, sink: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


COLUMNS = {name: {str(number): row[name] for number, row in enumerate(ROWS)} for name in ROWS[0]}
LAYOUTS: dict[str, tuple[str, bytes]] = {
    "comma": ("train.csv", delimited()),
    "semicolon": ("train.csv", delimited(";")),
    "tab": ("TRAIN.CSV", delimited("\t")),
    "bar": ("train.csv", delimited("|")),
    "excel sep": ("train.csv", delimited("|", "sep=|\n")),
    "byte order mark": ("train.csv", b"\xef\xbb\xbf" + delimited()),
    "tsv": ("train.TSV", delimited("\t")),
    "csv gzip": ("train.csv.gz", gzip.compress(delimited(";"))),
    "csv zstd": ("train.CSV.ZST", compressed(delimited(), "zstd")),
    "two gzip members": ("train.csv.gz", gzip.compress(delimited()[:20]) + gzip.compress(delimited()[20:])),
    "jsonl": ("train.jsonl", lines()),
    "ndjson": ("train.ndjson", lines()),
    "jsonl zstd": ("train.jsonl.zst", compressed(lines(), "zstd")),
    "json list": ("train.json", json.dumps(ROWS).encode()),
    "json gzip": ("train.json.gz", gzip.compress(json.dumps(ROWS, indent=1).encode())),
    "json data": ("train.json", json.dumps({"version": 1, "data": ROWS}).encode()),
    "json of pandas": ("train.json", json.dumps(COLUMNS).encode()),
    "json lines in .json": ("train.json", lines()),
    "parquet": ("train.parquet", arrow(pyarrow.parquet.write_table)),
    "arrow file": ("train.arrow", arrow(ipc_file)),
    "arrow stream": ("train.arrow", arrow(ipc_stream)),
    "feather": ("train.feather", arrow(pyarrow.feather.write_feather)),
    "excel": ("train.xlsx", excel(ROWS)),
    "excel sheets": ("train.XLSX", excel(ROWS, "notes", "train")),
}


def read(path: Path, **settings: Any) -> pa.Table:
    table = Table(train=str(path), **{"image_column": None} | settings).read("train")
    assert table is not None
    return table


def refused(path: Path, message: str, **settings: Any) -> None:
    with pytest.raises(RobustTuneError, match=message) as caught:
        read(path, **settings)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_agree(layout: str, tmp_path: Path) -> None:
    name, content = LAYOUTS[layout]
    (tmp_path / name).write_bytes(content)
    table = read(tmp_path / name)
    assert table["text"].to_pylist() == TEXTS
    assert table["labels"].to_pylist() == [["a"], ["b"], ["a"]]
    assert table["id"].to_pylist() == ["1", "2", "3"]
    assert read(tmp_path / name, label_column="more")["labels"].to_pylist() == [["1"], ["2"], ["3"]]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("train.csv.gz", gzip.compress(delimited(";")), "CSV with the delimiter ';', gzip; 3 rows"),
        ("train.tsv", delimited("\t"), r"TSV with the delimiter '\\t'; 3 rows"),
        ("train.xlsx", excel(ROWS, "notes", "train"), "Excel, sheet 'train' of 2; 3 rows"),
        ("train.json", lines(), "JSON Lines; 3 rows"),
    ],
    ids=["csv gzip", "tsv", "excel", "json lines"],  # without the contents, which have the time in them
)
def test_what_is_detected_is_logged(
    name: str, content: bytes, line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_bytes(content)
    with caplog.at_level(logging.INFO):
        read(tmp_path / name)
    assert [record.message.replace("\\", "\\\\") for record in caplog.records] == [f"{tmp_path / name}: {line}"]


@pytest.mark.parametrize(("mark", "setting"), [("^", "^"), (":", ":"), ("\t", "tab"), ("\t", "\\t"), ("|", "|")])
def test_a_delimiter_can_be_set(mark: str, setting: str, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(delimited(mark))
    assert read(path, delimiter=setting)["text"].to_pylist() == TEXTS
    if mark in "^:":
        refused(
            path, "the delimiter of .* cannot be told: its first line 'text.label.more' is no .*set data.source.del"
        )


def test_the_delimiter_that_finds_the_columns_wins(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text;label;a,b,c,d\nsoup;x;1\n")
    assert read(path)["labels"].to_pylist() == [["x"]]
    refused(
        path, "no column name .*set data.source.delimiter if it is no CSV with the delimiter ';', ", text_column="name"
    )


@pytest.mark.parametrize("files", ["shards", "shards/part-*.parquet"])
def test_several_files_are_one_table(files: str, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for number in range(3):
        rows = [{**row, "text": f"{number}", "image": "a.png"} for row in ROWS]
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / f"shards/part-{number}.parquet")
    (tmp_path / "shards/_SUCCESS").touch()
    table = read(tmp_path / files, image_column="image")
    assert table["text"].to_pylist() == [f"{number // 3}" for number in range(9)]
    assert table["id"].to_pylist() == [f"{number}" for number in range(1, 10)]
    assert {*table["image"].to_pylist()} == {str(tmp_path / "shards/a.png")}
    pyarrow.parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "shards/part-3.parquet")
    with pytest.raises(
        RobustTuneError, match=r"part-3.parquet has no column label, unlike part-0.parquet: repair or rem"
    ):
        read(tmp_path / files)
    (tmp_path / "shards/part-4.csv").touch()
    if files == "shards":
        refused(tmp_path / files, r"has files of several formats \(.csv, .parquet\): give those of one format")


def test_what_is_no_table_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is a folder without files: give a table, a folder")
    refused(tmp_path / "none-*.csv", "matches no file: give a table")
    for name, message in {
        "a.xls": "is an old Excel workbook: save it as .xlsx",
        "a.parquet.gz": "is a compressed .parquet file, which cannot be read in parts: decompress it",
        "a.csv.bz2": "is no table .*text formats also with .gz or .zst.: convert it",
    }.items():
        (tmp_path / name).touch()
        refused(tmp_path / name, message)
    (tmp_path / "a.csv").write_bytes(delimited())
    for settings, message in [
        ({"sheet": "a"}, "data.source.sheet is set, and no table is .xlsx: remove it"),
        ({"delimiter": ";;"}, "data.source.delimiter is ';;': give the one character"),
        ({"delimiter": ""}, "data.source.delimiter is '': give the one character"),
        ({"delimiter": '"'}, "data.source.delimiter is '\"': give the one character"),
    ]:
        with pytest.raises(RobustTuneError, match=message):
            read(tmp_path / "a.csv", **settings)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_damaged_archives_are_refused(codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"train.csv{'.gz' if codec == 'gzip' else '.zst'}"
    content = compressed(b"text,label\n" + b"".join(b"%d,a\n" % number for number in range(50_000)), codec)
    for damaged, message in {
        content[:-5]: "is truncated: fetch or write it again",
        content[: len(content) // 2]: "is truncated: fetch or write it again",
        b"text,label\nsoup,a\n": f"is no readable {codec} file .*: fetch or write it again",
        b"": "is empty: fetch or write it again",
        compressed(b"text,label\nso\xffup,a\n", codec): r"is not UTF-8 \(byte 13\): convert it to UTF-8",
        compressed(b"text,label\n", codec): "has no rows",
    }.items():
        path.write_bytes(damaged)
        refused(path, message)


@pytest.mark.parametrize("name", ["train.csv.zst", "train.json.gz"])
def test_decompression_bombs_are_refused(name: str, tmp_path: Path) -> None:
    """Long before they fill the memory."""
    path = tmp_path / name
    codec = "gzip" if name.endswith("gz") else "zstd"
    path.write_bytes(compressed(b'"' + b"a" * (100 << 20), codec))
    assert path.stat().st_size < 200_000
    refused(path, "decompresses to more than 200 times its size")


@pytest.mark.parametrize(
    "content",
    ["[1, 2]", '"text"', "7", '{"text": ["a"], "label": ["b"]}', '{"a": {"0": 1}, "b": {"1": 1}}', '{"data": [[1]]}'],
)
def test_other_json_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(content)
    refused(path, "holds no table: write a list of objects, ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a", "label": "b"}', "is not JSON .*: fetch or write it again"),
        ("", "is not JSON"),
        ("[]", "has no rows"),
        ('[{"text": "a", "label": "b"}, 7]', "of 2 rows, 1 are not JSON objects .the first: entry 2"),
        ('{"text": "a", "label": "b"}\n{"text": ', "of 2 rows, 1 are not JSON .the first: line 2"),
    ],
)
def test_broken_json_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(content)
    refused(path, message)


def test_excel_cells_are_what_is_shown(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 5, 31)
    values = [3.0, 2.5, day, day.replace(hour=7, minute=5), datetime.time(7, 5), True, " x ", "#N/A"]
    path = tmp_path / "train.xlsx"
    path.write_bytes(excel([{"text": "soup", "label": value} for value in values] + [{"text": "pie", "label": None}]))
    shown = ["3", "2.5", "2024-05-31", "2024-05-31 07:05:00", "07:05:00", "True", "x"]
    assert read(path, blank=["#N/A"])["labels"].to_pylist() == [*([text] for text in shown), None, None]


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"A3": "=1+1"}, {}, "of 3 rows, 1 have a formula without a stored value .the first: row 3, text.: open the"),
        ({"A3": "#REF!"}, {}, "of 3 rows, 1 hold an error .the first: row 3, text: #REF!.: correct the formula"),
        ({"C3": "#REF!"}, {}, None),
        ({"merge": "A2:A3"}, {}, "has merged cells .the first: A2:A3., of which only one holds the value: unmerge"),
        ({"A1": "label"}, {}, "the first row of .*, sheet 'Sheet', names the column 'label' twice: give it a header"),
        ({"A1": None, "B1": None, "C1": None}, {}, "the first row of .*, sheet 'Sheet', is blank: give it a header"),
        ({}, {"sheet": "other"}, "has no visible sheet 'other' .it has Sheet.: correct data.source.sheet"),
    ],
)
def test_workbooks_that_cannot_be_told(
    change: dict[str, Any], settings: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "train.xlsx"
    path.write_bytes(excel(ROWS))
    book = openpyxl.load_workbook(path)
    for cell, value in change.items():
        if cell == "merge":
            book.active.merge_cells(value)
        else:
            book.active[cell] = value
    book.save(path)
    if message is None:
        assert read(path)["text"].to_pylist() == TEXTS
    else:
        refused(path, message, **settings)


def test_sheets_are_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "all.xlsx"
    path.write_bytes(excel(ROWS, "one", "two"))
    refused(path, "has 2 visible sheets, none with the name 'train' .it has one, two.: set data.source.sheet")
    assert len(read(path, sheet="two")) == 3
    book = openpyxl.load_workbook(path)
    book["one"].sheet_state = "hidden"
    book.save(path)
    assert len(read(path)) == 3


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no", excel(ROWS)[:-300], excel(ROWS)[:500]])
def test_damaged_workbooks_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "train.xlsx"
    path.write_bytes(content)
    refused(path, "is no readable Excel workbook .*: save it as an Excel workbook")


def test_without_the_extra_a_workbook_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.xlsx"
    path.write_bytes(excel(ROWS))
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(RobustTuneError, match=r"this data needs openpyxl: pip install 'robusttune\[excel\]'"):
        read(path)


@pytest.mark.parametrize("ending", [".arrow", ".feather", ".parquet"])
@pytest.mark.parametrize("content", [b"", b"ARROW1 no", b"PAR1 no", arrow(ipc_file)[:-40], arrow(ipc_stream)[:200]])
def test_damaged_binary_tables_are_refused(ending: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"train{ending}"
    path.write_bytes(content)
    refused(path, "is no readable (Arrow|Parquet) file .*: write it again")


def test_a_parquet_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    opened: list[Any] = []
    original = pyarrow.parquet.ParquetFile
    monkeypatch.setattr(
        pyarrow.parquet, "ParquetFile", lambda *args, **kw: [opened.append(args), original(*args, **kw)][1]
    )
    monkeypatch.setattr(pyarrow.parquet, "read_schema", lambda *_: pytest.fail("opened again"))
    assert len(read(path)) == 3
    assert len(opened) == 1


def test_columns_of_other_types_are_not_read(tmp_path: Path) -> None:
    """And names with dots are names."""
    path = tmp_path / "train.parquet"
    rows = [{"a.b": "soup", "a": {"b": "no"}, "label": "x", "more": b"\xff"}]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    assert read(path, text_column="a.b")["text"].to_pylist() == ["soup"]
