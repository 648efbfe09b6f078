"""Rows of tables and their labels as arrays, against tables and lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusttune.data import rows as rows_module
from robusttune.data.class_indices import ClassIndices, by_first_appearance, rows_by_class
from robusttune.data.labels import encode_labels, facts_of
from robusttune.data.look_alikes import plain_form
from robusttune.data.problems import Problems
from robusttune.data.row_images import row_images
from robusttune.data.rows import Rows
from robusttune.data.sources.base import SCHEMA
from robusttune.errors import RobustTuneError

CLASSES = ["pie", "soup", "Stew", "tart"]
NAMES = st.lists(st.sampled_from(["pie", "soup", "stew", "tart", "cake"]), max_size=3, unique=True)
RECORD = st.fixed_dictionaries(
    {
        "image": st.none() | st.sampled_from(["a.png", "b.png"]),
        "text": st.none() | st.text(max_size=3),
        "labels": st.none() | NAMES,
        "more_images": st.none() | st.lists(st.sampled_from(["c.png", "d.png"]), max_size=2),
    }
)
RECORDS = st.lists(RECORD, min_size=1, max_size=30)
LISTS = st.lists(st.lists(st.integers(0, 9), max_size=4, unique=True), max_size=30)


def table_of(records: list[dict[str, Any]], chunk: int = 7) -> pa.Table:
    """A table in several chunks, as that of a file is."""
    named = [{"id": f"'{row}'", **record} for row, record in enumerate(records)]
    parts = [named[start : start + chunk] for start in range(0, len(named), chunk)]
    return pa.Table.from_batches([pa.RecordBatch.from_pylist(part, SCHEMA) for part in parts])


@given(RECORDS, st.randoms(), st.data())
def test_selected_and_hidden_rows_are_those_of_a_copied_table(
    records: list[dict[str, Any]], random: Any, data: st.DataObject
) -> None:
    table = table_of(records)
    first = sorted(random.sample(range(len(table)), data.draw(st.integers(1, len(table)))))
    second = sorted(random.sample(range(len(first)), data.draw(st.integers(0, len(first)))))
    hidden = np.array([[random.random() < 0.3, random.random() < 0.3] for _ in first])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "CHUNK", 5)
        found = Rows(table).select(np.array(first)).hide(hidden).select(np.array(second, dtype=np.int64))
        copied = table.take(first)
        for column, name in enumerate(("image", "text")):
            kept = pc.if_else(pa.array(~hidden[:, column]), copied[name], pa.scalar(None, pa.string()))
            copied = copied.set_column(copied.schema.get_field_index(name), SCHEMA.field(name), kept)
        copied = copied.take(pa.array(second, pa.int64()))
        assert found.table().to_pylist() == copied.to_pylist()
        assert found.table().schema == SCHEMA
        assert [part for each in found.chunks("text", "id") for part in each["id"].to_pylist()] == copied[
            "id"
        ].to_pylist()
    assert len(found) == len(copied)
    for name in SCHEMA.names:
        assert [found.value(name, row) for row in range(len(found))] == copied[name].to_pylist()
    images = row_images(copied)
    assert [found.images(row) for row in range(len(found))] == images
    assert [*found.all_images()] == [name for row in images for name in row]
    assert found.image_count == sum(map(len, images))
    assert found.most_images >= max(map(len, images), default=1)
    for name in ("image", "text"):
        assert found.present(name).tolist() == copied[name].is_valid().to_pylist()
    names, classes, known = found.labels
    given_labels = copied["labels"].to_pylist()
    assert [[names[index] for index in row] for row in classes.to_lists()] == [row or [] for row in given_labels]
    assert known.tolist() == [row is not None for row in given_labels]


def test_the_whole_table_is_not_copied(tmp_path: Path) -> None:
    table = table_of([{"image": "a", "text": "b", "labels": ["c"], "more_images": None}] * 30)
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_table(table)
    rows = Rows(pa.ipc.open_file(pa.memory_map(str(tmp_path / "rows.arrow"))).read_all())
    before = pa.total_allocated_bytes()
    assert len(rows.table()) == 30
    assert len(rows.select(np.arange(0, 30, 2))) == 15
    assert pa.total_allocated_bytes() == before


@given(RECORDS, st.booleans())
def test_labels_are_encoded_or_refused_as_row_by_row(records: list[dict[str, Any]], multilabel: bool) -> None:
    table = table_of(records)
    expected = outcome(lambda: encode_row_by_row(table, multilabel))
    assert outcome(lambda: encode_labels(Rows(table), CLASSES, multilabel, "train").to_lists()) == expected
    if isinstance(expected, list):
        frequencies = [sum(index in row for row in expected) / len(table) for index in range(len(CLASSES))]
        assert facts_of(ClassIndices.of(expected), CLASSES, multilabel).class_frequencies == frequencies


def outcome(call: Any) -> Any:
    """What a function returns, or the message of its error."""
    try:
        return call()
    except RobustTuneError as error:
        return str(error)


def encode_row_by_row(table: pa.Table, multilabel: bool) -> list[list[int]]:
    """Map labels to class indices, or refuse them, one row after the other."""
    bad = Problems("the train split", "samples")
    for sample_id, names in zip(table["id"].to_pylist(), table["labels"].to_pylist(), strict=True):
        unknown = [name for name in names or [] if name not in CLASSES]
        if names is None:
            bad.add(repr(sample_id), "have no label", "label them, or use them to predict only")
        elif not multilabel and len(names) != 1:
            bad.add(repr(sample_id), f"have {'several' if names else 'no'} labels", "set multilabel to true")
        elif unknown:
            alike = {plain_form(name): name for name in CLASSES}.get(plain_form(unknown[0]))
            known = "" if alike is None else f" (training has {alike!r})"
            at = f"{unknown[0]!r}{known} of {sample_id!r}"
            bad.add(at, "have a label that training does not know", "correct it, or train with it")
    bad.refuse(len(table))
    return [[CLASSES.index(name) for name in names] for names in table["labels"].to_pylist()]


@given(LISTS, st.randoms())
def test_class_indices_are_lists_in_less_memory(lists: list[list[int]], random: Any) -> None:
    classes = ClassIndices.of(lists)
    assert classes.to_lists() == lists
    assert len(classes) == len(lists)
    assert classes.counts.tolist() == [len(row) for row in lists]
    assert classes.rows.tolist() == [row for row, of in enumerate(lists) for _ in of]
    drawn = [random.randrange(len(lists)) for _ in range(5)] if lists else []
    assert classes.select(np.array(drawn, dtype=np.int64)).to_lists() == [lists[row] for row in drawn]
    numbers: dict[int, int] = {}
    renamed = [[numbers.setdefault(index, len(numbers)) for index in row] for row in lists]
    assert by_first_appearance(classes).to_lists() == renamed
    order = random.sample(range(len(lists)), len(lists))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robusttune.data.class_indices.CHUNK", 4)
        found = rows_by_class(classes, np.array(order, dtype=np.int64))
    expected = [[row for row in order if index in lists[row]] for index in range(len(found))]
    assert [rows.tolist() for rows in found] == expected
