"""Label cells as people write them: what is a list, what is a code, what is blank, and what only seems to be a name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from fakes import write_table
from hypothesis import given
from hypothesis import strategies as st

from robusttune.data.sources import HuggingFace, Source, Table
from robusttune.data.sources.list_text import UnreadableListError, parse_list
from robusttune.errors import RobustTuneError

GENRES = [["Drama"], ["Drama", "Comedy"], ["Comedy", "War"], ["War"]]


def table_of(folder: Path, labels: list[Any], **settings: Any) -> Source:
    folder.mkdir(exist_ok=True)
    rows = [{"text": "t", "label": label} for label in labels]
    return Table(train=str(write_table(folder, "train", rows)), image_column=None, **settings)


def hugging_face_of(folder: Path, labels: list[Any], **settings: Any) -> Source:
    Dataset.from_dict({"text": ["t"] * len(labels), "label": labels}).save_to_disk(folder / "own")
    return HuggingFace(str(folder / "own"), image_column=None, **settings)


SOURCES = pytest.mark.parametrize("make", [table_of, hugging_face_of])


def labels_of(source: Source) -> list[list[str] | None]:
    table = source.read("train")
    assert table is not None
    labels: list[list[str] | None] = table["labels"].to_pylist()
    return labels


@SOURCES
@pytest.mark.parametrize(
    "write",
    [
        repr,
        lambda names: str(names).replace("'", '"'),
        lambda names: str(np.array(names)),
        lambda names: str(tuple(names)),
    ],
    ids=["python", "json", "numpy", "tuple"],
)
def test_lists_written_as_text_are_lists(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Any, write: Any
) -> None:
    written = [write(names) for names in GENRES]
    assert labels_of(make(tmp_path, written, multilabel=True)) == GENRES
    assert "lists written as text in the column label are read as lists, of 4 rows" in caplog.text
    with pytest.raises(RobustTuneError, match="of 4 rows, 4 have a list written as text as label .*multilabel to true"):
        make(tmp_path / "single", written).read("train")


@given(st.lists(st.text(max_size=8), max_size=4))
def test_what_python_and_json_write_is_read_back(names: list[str]) -> None:
    assert parse_list(repr(names)) == names
    assert parse_list(json.dumps(names)) == names


@given(
    st.lists(
        st.text(st.characters(exclude_characters="'\"\\\n", exclude_categories=["C", "Z"]), max_size=8), min_size=1
    )
)
def test_what_numpy_writes_is_read_back(names: list[str]) -> None:
    assert parse_list(str(np.array(names))) == names


@pytest.mark.parametrize(
    "text", ["soup", "(0, 10)", "[hot] soup", "[soup]", "{soup}", "(soup)", "[", "[]]", "{'a': 1}"]
)
def test_names_with_brackets_stay_names(text: str) -> None:
    assert parse_list(text) is None


@pytest.mark.parametrize("text", ["['a' 'b', 'c'", "['a', b]", '["a" ... "b"]'])
def test_a_list_that_cannot_be_read_is_no_name(tmp_path: Path, text: str) -> None:
    if text.endswith("]"):
        with pytest.raises(UnreadableListError):
            parse_list(text)
        with pytest.raises(RobustTuneError, match="1 have a list written as text in label that cannot be read"):
            table_of(tmp_path, ["x", text]).read("train")
    else:
        assert parse_list(text) is None


CODES: list[list[Any]] = [
    [[1, 0, 1], [0, 0, 0], [0, 1, 0]],
    [[True, False], [False, True], [True, True]],
    [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]],
    ["[1, 0, 1]", "[0 1 0]", "[True, False, False]"],
]


@SOURCES
@pytest.mark.parametrize("multilabel", [True, False])
@pytest.mark.parametrize("codes", CODES)
def test_a_multi_hot_code_is_explained(tmp_path: Path, make: Any, codes: list[Any], multilabel: bool) -> None:
    message = r"the column label holds lists of \d zeros and ones each .the first: .*multi-hot code .*: write the names"
    with pytest.raises(RobustTuneError, match=message):
        make(tmp_path, codes, multilabel=multilabel).read("train")


def test_a_multi_hot_code_in_a_column_of_numbered_classes_is_explained(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": List(ClassLabel(names=["a", "b", "c"]))})
    rows = {"text": ["t"] * 2, "label": [[1, 0, 1], [0, 1, 0]]}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "own")
    with pytest.raises(RobustTuneError, match="multi-hot code"):
        HuggingFace(str(tmp_path / "own"), image_column=None, multilabel=True).read("train")


@SOURCES
def test_numbers_of_classes_are_no_code(tmp_path: Path, make: Any) -> None:
    assert labels_of(make(tmp_path, [[0, 1], [2], [1, 0]], multilabel=True)) == [["0", "1"], ["2"], ["1", "0"]]


@SOURCES
def test_a_class_named_twice_is_refused(tmp_path: Path, make: Any) -> None:
    labels = [["a", "b"], ["a", " a"], ["b", "b"]]
    with pytest.raises(RobustTuneError, match="of 3 rows, 2 name a class twice in label .*: name each class once"):
        make(tmp_path, labels, multilabel=True).read("train")


def test_a_class_named_twice_between_separators_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match="1 name a class twice in label .the first: line 2, 'a. a'"):
        table_of(tmp_path, ["a|b", "a| a"], multilabel=True).read("train")


def test_a_separator_that_comes_up_nowhere_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = [", ".join(names) for names in GENRES]
    labels_of(table_of(tmp_path, labels, multilabel=True))
    assert "of the labels in the column label 2 hold ',' and none holds '|' (the first: 'Drama, Comedy')" in caplog.text
    assert "set data.source.label_separator to ','" in caplog.text
    caplog.clear()
    labels_of(table_of(tmp_path, labels, multilabel=True, label_separator=","))
    labels_of(table_of(tmp_path, ["|".join(names) for names in GENRES], multilabel=True))
    assert not caplog.text


def test_labels_with_another_separator_than_the_others_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels_of(table_of(tmp_path, ["Drama|War", "Drama, Comedy", "Comedy, Drama", "Comedy", "Drama"], multilabel=True))
    assert "of the labels in the column label 2 hold ',' and not '|' (the first: 'Drama, Comedy')" in caplog.text


def test_names_that_seem_to_be_several_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels_of(table_of(tmp_path, ["|".join(names) for names in GENRES]))
    assert "set data.source.multilabel to true" in caplog.text
    caplog.clear()
    labels_of(table_of(tmp_path, ["soup, hot", "pie, cold", "soup, hot"]))  # names that have a comma
    assert not caplog.text


MISSING = ["nan", "None", "NULL", "N/A", "<NA>"]


@SOURCES
def test_texts_and_labels_that_read_nan_are_logged_or_blank(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Any
) -> None:
    """As a column that pandas turned into texts."""

    def read(**settings: Any) -> pa.Table:
        folder = tmp_path / str(len(settings))
        rows = pa.table({"text": [*MISSING, "soup", "nanny"], "label": [*"ababab", "nan"]})
        folder.mkdir()
        pa.parquet.write_table(rows, folder / "train.parquet")
        if make is table_of:
            source: Source = Table(train=str(folder / "train.parquet"), image_column=None, **settings)
        else:
            Dataset(rows).save_to_disk(folder / "own")
            source = HuggingFace(str(folder / "own"), image_column=None, **settings)
        return source.read("train")

    assert read()["text"].to_pylist() == [*MISSING, "soup", "nanny"]
    assert "of 7 rows, 5 read nan, None, NULL, N/A, <NA> in the column text, as programs write missing" in caplog.text
    assert "1 reads nan in the column label" in caplog.text
    assert "set data.source.blank to ['nan', 'None', 'NULL', 'N/A', '<NA>']" in caplog.text
    caplog.clear()
    table = read(blank=["NaN", "none", "null", "n/a", "<na>"])
    assert table["text"].to_pylist() == [None] * 5 + ["soup", "nanny"]
    assert table["labels"].to_pylist() == [*([name] for name in "ababab"), None]
    assert not caplog.text


def test_a_list_of_nothing_that_is_blank_silences_the_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert labels_of(table_of(tmp_path, ["none", "some"], blank=[])) == [["none"], ["some"]]
    assert not caplog.text
