"""Labels in a column for each class, and texts of several columns."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from fakes import write_table

from robusttune.data.sources import Table
from robusttune.data.sources.text_template import TextTemplate
from robusttune.errors import RobustTuneError


def read(folder: Path, rows: list[dict[str, Any]], split: Any = "train", **settings: Any) -> list[dict[str, Any]]:
    path = write_table(folder, split, rows)
    table = Table(**{split: str(path), "image_column": None} | settings).read(split)
    assert table is not None
    return table.to_pylist()


def labels(folder: Path, cells: list[tuple[Any, Any]], multilabel: bool = True, **settings: Any) -> list[Any]:
    rows = [{"text": "soup", "hot": hot, "cold": cold} for hot, cold in cells]
    found = read(folder, rows, label_columns=["hot", "cold"], multilabel=multilabel, **settings)
    return [row["labels"] for row in found]


def test_zeros_and_ones_in_any_notation(tmp_path: Path) -> None:
    cells = [(0, 1), ("1", "0"), (1.0, True), ("0.0", " 1.0 "), (False, "FALSE"), ("true", "false")]
    expected = [["cold"], ["hot"], ["hot", "cold"], ["cold"], [], ["hot"]]
    assert labels(tmp_path, cells) == expected
    assert labels(tmp_path, [(0, 1), (1, 0)], multilabel=False) == [["cold"], ["hot"]]


def test_classes_have_the_order_of_the_columns(tmp_path: Path) -> None:
    rows = [{"text": "soup", "b": number % 2, "a": number % 3 == 0, "c": 0} for number in range(6)]
    path = write_table(tmp_path, "train", rows)
    source = Table(train=str(path), image_column=None, label_columns=["c", "b", "a"], multilabel=True)
    assert source.class_names(source.read("train")) == ["b", "a"]


def test_a_class_that_no_row_has_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        labels(tmp_path, [(0, 1), (0, 0)])
    assert caplog.messages == [f"{tmp_path / 'train.jsonl'}: no row has a 1 in the label columns hot"]


@pytest.mark.parametrize(
    ("cells", "multilabel", "message"),
    [
        (
            [(0, 1), (2, 0), ("x", 1)],
            True,
            "of 3 rows, 2 have another value than 0 and 1 in a label column .the first: line 2, hot: 2.: write 0 or 1",
        ),
        (
            [(0, None), (float("nan"), 0), ("", 0)],
            True,
            "of 3 rows, 3 have a blank in a label column .the first: line 1, cold.: write 0 or 1",
        ),
        ([([1], 0)], True, "1 have another value than 0 and 1"),
        (
            [(0, 1), (0, 0)],
            False,
            "of 2 rows, 1 have no 1 in the label columns .the first: line 2.: write exactly one 1, or set data",
        ),
        (
            [(1, 1), (0, 1)],
            False,
            "of 2 rows, 1 have more than one 1 in the label columns .the first: line 1, hot, cold.",
        ),
    ],
)
def test_other_values_are_refused_with_their_rows(
    cells: list[tuple[Any, Any]], multilabel: bool, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RobustTuneError, match=message):
        labels(tmp_path, cells, multilabel)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_columns": ["a"], "label_column": "other"}, "label_column and label_columns are both set: remove one"),
        ({"label_columns": []}, "label_columns has no name, or one twice"),
        ({"label_columns": ["a", "a"]}, "label_columns has no name, or one twice"),
        ({"label_columns": ["a", "b", "c"]}, "has no column b, c .it has a, text"),
        ({"label_column": None}, "label_column is null: leave it out, or give label_columns"),
        ({"text_template": "{text} {name}", "label_column": "a"}, "has no column name .it has a, text"),
        ({"text_template": "{text}", "text_column": "a"}, "text_column and text_template are both set: remove one of"),
        ({"text_template": "text"}, "'text' has no column in braces: write the names of columns in braces"),
        ({"text_template": "{text"}, "cannot be read .expected '}' before end of string.: write the names"),
        ({"text_template": "{}"}, "has {}, which is not just the name of a column"),
        ({"text_template": "{text!r}"}, "has {text!r}, which is not just the name of a column"),
        ({"text_template": "{text:>100000000}"}, "has {text:>100000000}, which is not just"),
        ({"text_template": "{text.__class__}", "label_column": "a"}, "has no column text.__class__ "),
        ({"text_template": "{text[0]}", "label_column": "a"}, r"has no column text\[0\] "),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match=message):
        read(tmp_path, [{"text": "soup", "a": 1}], **settings)


def test_samples_to_predict_need_no_label_columns(tmp_path: Path) -> None:
    assert read(tmp_path, [{"text": "soup"}], "predict", label_columns=["a", "b"])[0]["labels"] is None


@pytest.mark.parametrize(
    ("template", "cells", "text"),
    [
        ("{a}. {b}", {"a": "Pho", "b": "A soup"}, "Pho. A soup"),
        ("{a}. {b}", {"a": "Pho", "b": None}, "Pho"),
        ("{a}. {b}", {"a": None, "b": "A soup"}, "A soup"),
        ("{a}. {b}", {"a": None, "b": None}, None),
        ("Dish: {a} ({b})", {"a": "Pho", "b": "hot"}, "Dish: Pho (hot)"),
        ("Dish: {a} ({b})", {"a": "Pho", "b": None}, "Dish: Pho"),
        ("Dish: {a} ({b})", {"a": None, "b": "hot"}, "hot)"),
        ("{a}, {b}; {c}", {"a": "x", "b": None, "c": "z"}, "x; z"),
        ("{a}, {b}; {c}", {"a": None, "b": "y", "c": "z"}, "y; z"),
        ("{{{a}}} {a}", {"a": "x"}, "{x} x"),
        ("{a}", {"a": "{b} {0.__class__}"}, "{b} {0.__class__}"),
        ("{a b.c}", {"a b.c": "x"}, "x"),
    ],
)
def test_templates(template: str, cells: dict[str, str | None], text: str | None) -> None:
    assert TextTemplate(template).fill(cells.__getitem__) == text


def test_a_template_joins_columns_of_any_kind(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"title": " Pho ", "price": 7, "label": "a"},
        {"title": "n/a", "price": 8.5, "label": "b"},
        {"title": "", "price": None, "label": "b"},
    ]
    found = read(tmp_path, rows, text_template="{title}, {price} €", blank=["N/A"])
    assert [row["text"] for row in found] == ["Pho, 7 €", "8.5 €", None]
    with pytest.raises(RobustTuneError, match="of 1 rows, 1 have no text in the column title .the first: line 1, "):
        read(tmp_path, [{"title": ["Pho"], "price": 1, "label": "a"}], text_template="{title}, {price}")
