"""Conversion of tables column by column: the same records, sentences and counts as row by row."""

from __future__ import annotations

import base64
import csv
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robusttune.data.sources import Table, table_batches
from robusttune.data.sources.column_records import ColumnRecords
from robusttune.data.sources.rows import RowBatch
from robusttune.errors import RobustTuneError

WORDS = [
    "soup",
    " pie",
    "a|b",
    "a| a",
    "nan",
    " N/A ",
    "None",
    "",
    "  ",
    "\u2003",
    "ÉCLAIR",
    "Straße",
    "-",
    "x\x1fy",
    "7",
]
LISTS = ["['soup', 'pie']", '["soup"]', "['soup' ", "[1 0 1]", "[]"]
IMAGES = [
    *(
        "a.png",
        "sub/b.png",
        " c.jpg ",
        "a//b.png",
        "./a.png",
        "../a.png",
        "sub/../a.png",
        "/abs/a.png",
        "/",
        "..",
        "a/",
    ),
    *("https://example.org/a.png", "HTTP://example.org/a::b", "s3://photos/a.png", "ftp://example.org/a.png"),
    *("file:///tmp/a.png", "file://other/a.png", "['a.png', 'b.png']", "['a.png'", "a\0b", "é/ü.png", "x" * 5000),
    *("data:image/png;base64,aGVsbG8=", "DATA:,hello", base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()),
]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"multilabel": True},
    {"multilabel": True, "label_separator": ", ", "blank": ["-", "straSSE", "É" * 3]},
    {"id_column": "text"},
    {"text_column": None, "text_template": "<{text}: {label}>, {text}!"},
    {"image_root": "ROOT"},
    {"image_root": "https://example.org/photos/", "several_images": "mean"},
    {"image_column": None},
    {"label_column": "image"},
    {"text_column": None, "text_template": "{text}{label}", "label_column": None, "label_columns": ["text", "image"]},
    {"label_column": None, "label_columns": ["label", "text"], "multilabel": True, "image_column": None},
]
texts = st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8"), max_size=4)
cells: dict[str, st.SearchStrategy[Any]] = {
    "image": st.sampled_from(IMAGES) | texts,
    "text": texts | st.sampled_from(["0", "1", " 1.0"]),
    "label": texts | st.sampled_from(LISTS) | st.sampled_from(["0", "1", "true"]),
}
values = st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.lists(texts | st.none(), max_size=3)


def rows_of(*extra: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows whose columns mostly have cells that are fine, and few others."""
    whole = st.fixed_dictionaries({name: st.one_of(cell, *extra) for name, cell in cells.items()})
    fine = st.builds(
        lambda n: {"image": f"{n}.png", "text": f"text {n}", "label": f"class {n % 3}"}, st.integers(0, 30)
    )
    return st.lists(fine | whole, min_size=1, max_size=14)


@contextmanager
def converted(few: int) -> Iterator[list[str]]:
    """Have tables converted row by row below this number of rows, and yield the warnings."""
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("robusttune")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_batches, "FEW", few)
        patch.setattr(table_batches, "CHUNK", 4)
        patch.setattr("robusttune.data.sources.arrow_file.BATCH", 4)
        logger.addHandler(handler)
        try:
            yield warnings
        finally:
            logger.removeHandler(handler)


def outcome(path: Path, few: int, **settings: Any) -> tuple[Any, list[str]]:
    """Return the rows of a table, or the error, and the warnings."""
    with converted(few) as warnings:
        try:
            table = Table(train=str(path), **settings).read("train")
            assert table is not None
            table.validate(full=True)
            return table.to_pylist(), warnings
        except RobustTuneError as error:
            return str(error), warnings


def agree(path: Path, number: int) -> None:
    settings = SETTINGS[number] | ({"image_root": str(path.parent)} if number == 5 else {})
    assert outcome(path, 1, **settings) == outcome(path, 10**9, **settings)


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "text", "label"])
        writer.writeheader()
        writer.writerows(rows)


choice = st.integers(0, len(SETTINGS) - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@settings(max_examples=60)
@given(rows_of(), choice, st.sampled_from(["", '"', "{", "x\n\n"]))
def test_texts_agree(folder: Path, rows: list[dict[str, Any]], number: int, broken: str) -> None:
    """Also where a line at the end cannot be parsed."""
    for path, write in ((folder / "train.jsonl", write_jsonl), (folder / "train.csv", write_csv)):
        write(path, rows)
        with path.open("a") as file:
            file.write(broken)
        agree(path, number)


@settings(max_examples=60)
@given(rows_of(values, st.text(st.characters(codec=None), max_size=2)), choice)
def test_any_cells_agree(folder: Path, rows: list[dict[str, Any]], number: int) -> None:
    write_jsonl(folder / "train.jsonl", rows)
    agree(folder / "train.jsonl", number)


COLUMNS: dict[str, Callable[[list[Any]], pa.Array]] = {
    "text": lambda cells: pa.array(cells, pa.string()),
    "large text": lambda cells: pa.array(cells, pa.large_string()),
    "categories": lambda cells: pa.array(cells, pa.string()).dictionary_encode(),
    "numbers": lambda cells: pa.array([None if c is None else len(c) % 3 for c in cells], pa.int8()),
    "number categories": lambda cells: pa.array([None if c is None else len(c) % 2 for c in cells]).dictionary_encode(),
    "decimals": lambda cells: pa.array([None if c is None else len(c) / 2 for c in cells]),
    "flags": lambda cells: pa.array([None if c is None else len(c) > 3 for c in cells], pa.bool_()),
    "lists": lambda cells: pa.array([None if c is None else [c, "soup"] for c in cells], pa.list_(pa.string())),
    "number lists": lambda cells: pa.array([None if c is None else [len(c) % 2, 2] for c in cells]),
    "nulls": lambda cells: pa.nulls(len(cells)),
    "bytes": lambda cells: pa.array([None if c is None else c.encode() for c in cells], pa.binary()),
    "bad bytes": lambda cells: pa.array([b"\xed\xa0\x80"] * len(cells)).cast(pa.binary()).view(pa.string()),
}
kinds = st.sampled_from(["text"] * 6 + [*COLUMNS])


@settings(max_examples=60)
@given(rows_of(st.none()), st.tuples(kinds, kinds, kinds), choice)
def test_columns_agree(folder: Path, rows: list[dict[str, Any]], kinds: tuple[str, str, str], number: int) -> None:
    """In Parquet files, with columns of several types."""
    columns = {
        name: COLUMNS[kind]([row[name] for row in rows])
        for name, kind in zip(("image", "text", "label"), kinds, strict=True)
    }
    pyarrow.parquet.write_table(pa.table(columns), folder / "train.parquet")
    agree(folder / "train.parquet", number)


def test_only_the_batch_with_a_problem_is_read_row_by_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"image": f"{n}.png", "text": "t", "label": "x", "key": f"k{n}"} for n in range(40)]
    rows[37] |= {"image": "../37.png", "key": "k2"}
    path = folder / "shop.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    by_row: list[str] = []
    monkeypatch.setattr(
        RowBatch, "rows", lambda batch, rows=RowBatch.rows: (by_row.append(batch.place(0)), rows(batch))[1]
    )
    root = {"image_root": str(folder), "id_column": "key"}
    error, _ = outcome(path, 1, **root)
    assert "of 40 rows, 1 name an image outside of the folder of images" in error
    assert "(the first: row 38, '../37.png'), 1 repeat an id (the first: row 38, 'k2' of row 3)" in error
    assert by_row == ["row 37"]


def test_fine_tables_are_read_by_columns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each format and setting that large tables usually have."""
    found: list[bool] = []
    records = ColumnRecords.records
    monkeypatch.setattr(
        ColumnRecords, "records", lambda *args: (found.append((batch := records(*args)) is not None), batch)[1]
    )
    rows = [{"image": f"/photos/{n}.png", "text": f"text {n}", "label": "ab"[n % 2], "key": n} for n in range(12)]
    write_jsonl(folder / "fine.jsonl", rows)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "fine.parquet")
    template = {"text_column": None, "text_template": "{text}, {key}"}
    for name in ("fine.jsonl", "fine.parquet"):
        for options in ({}, {"id_column": "key", "multilabel": True}, template):
            outcome(folder / name, 1, **options)
    assert found == [True] * 18


ORDERS: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    "warnings": ({}, {"text": ["t", "NA", "t", "null", "NA"], "label": ["None", "x", "nan", "x", "x"]}),
    "codes": ({"multilabel": True}, {"text": ["t"] * 5, "label": [["0", "1"]] * 5}),
    "repeated classes": ({"multilabel": True}, {"text": ["t"] * 6, "label": [["x"]] * 5 + [["y", " y"]]}),
    "separators": ({}, {"text": ["t"] * 5, "label": ["a;b", "b;c", "a;b", "c;a", "a;c"]}),
    "lists as text": ({"multilabel": True}, {"text": ["t"] * 5, "label": ["x"] * 4 + ["['x', 'y']"]}),
}


@pytest.mark.parametrize(("options", "columns"), ORDERS.values(), ids=[*ORDERS])
def test_messages_have_one_order(folder: Path, options: dict[str, Any], columns: dict[str, list[Any]]) -> None:
    path = folder / "order.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    options = options | {"image_column": None}
    found, warnings = outcome(path, 1, **options)
    assert (found, warnings) == outcome(path, 10**9, **options)
    assert isinstance(found, str) or warnings
