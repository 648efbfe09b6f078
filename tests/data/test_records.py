"""Which samples are used: shots, base and new classes, masks."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from fakes import grouped, tiny_image_encoder, tiny_text_encoder
from hypothesis import given
from hypothesis import strategies as st
from layouts import LAYOUTS, jsonl, picture, write_table_copy

from robusttune.corruption.masks import Mask
from robusttune.data import ImageTextDataModule, Missing, MissingBySplit, Splits
from robusttune.data.class_indices import ClassIndices
from robusttune.data.mask_files import write_mask
from robusttune.data.records import SplitRecords
from robusttune.data.sources import Shapes, Table, World
from robusttune.data.splits import chosen_classes, draw_shots
from robusttune.errors import RobustTuneError
from robusttune.types import Facts

CODES: Any = {0: "complete", 1: "no_text", 2: "no_image"}


def records(
    source: Any, *, new_classes: bool = False, seed: int = 0, missing: Any = None, **splits: Any
) -> SplitRecords:
    return SplitRecords(source, Splits(**splits), MissingBySplit(**missing or {}), new_classes, seed)


def counts(table: pa.Table | None) -> dict[str, int]:
    assert table is not None
    return Counter(name for (name,) in table["labels"].to_pylist())


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(1, 6), st.integers(0, 3))
def test_shots_are_those_of_the_published_draw(labels: list[int], shots: int, seed: int) -> None:
    """Computed another way: class by class, as they come up, from one generator."""
    found = draw_shots(ClassIndices.of([[label] for label in labels]), shots, random.Random(seed)).tolist()
    generator, expected = random.Random(seed), []
    for label in dict.fromkeys(labels):
        rows = [row for row, other in enumerate(labels) if other == label]
        expected += rows if len(rows) < shots else generator.sample(rows, shots)
    assert found == sorted(expected)
    assert all(count <= shots for count in Counter(labels[row] for row in found).values())


def test_shots_of_a_seed() -> None:
    """What Python's generator gives, for good: 2 of 5 of each of two classes, one after the other."""
    assert draw_shots(ClassIndices.of([[0]] * 5 + [[1]] * 5), 2, random.Random(1)).tolist() == [0, 1, 5, 7]


def test_what_is_trained_and_distinguished_are_the_classes_that_are_used(tmp_path: Path, text_folder: Path) -> None:
    LAYOUTS["oxford_pets"].write(tmp_path)
    encoders = tiny_image_encoder(), tiny_text_encoder(text_folder)
    for which, names, shares in (
        ("base", ["pug", "Abyssinian cat"], [0.5, 0.5]),
        ("all", ["pug", "Abyssinian cat", "leonberger"], [1 / 3] * 3),
    ):
        splits = Splits(shots=2, classes=which)  # type: ignore[arg-type]
        source = LAYOUTS["oxford_pets"].source(tmp_path)
        data = ImageTextDataModule(source, *encoders, splits=splits, **grouped(classes="all", workers=0))
        assert data.facts.class_names == names
        assert data.facts.class_frequencies == pytest.approx(shares)
        assert data.class_names("val") == names
        assert data.class_names("test") == ["pug", "Abyssinian cat", "leonberger"]


@pytest.mark.parametrize("layout", ["oxford_pets", "fgvc_aircraft"])
def test_new_classes_alone_are_distinguished_from_their_own_kind(
    tmp_path: Path, text_folder: Path, layout: str
) -> None:
    """Only classes that are used can be answered with: `own` and new ones are the published test of those."""
    LAYOUTS[layout].write(tmp_path)
    source = LAYOUTS[layout].source(tmp_path)
    whole = source.class_names(source.read("test"))
    known = Facts(["another", "one"], [0.5, 0.5], False)
    for which, names in (("all", whole), ("base", whole[:2])):
        splits = Splits(classes=which)  # type: ignore[arg-type]
        encoders = tiny_image_encoder(), tiny_text_encoder(text_folder)
        records_of = SplitRecords(source, splits, MissingBySplit(), False, 0)
        assert records_of.test_class_names == names
        data = ImageTextDataModule(source, *encoders, splits=splits, facts=known, **grouped(classes="test", workers=0))
        assert data.class_names("test") == whole  # base leaves the test split whole where it may have new classes
    assert SplitRecords(source, Splits(classes="new"), MissingBySplit(), True, 0).test_class_names == whole[2:]


def test_shots_are_for_one_label_each() -> None:
    with pytest.raises(RobustTuneError, match=r"data\.splits\.shots is for samples of one class each"):
        draw_shots(ClassIndices.of([[0, 1]]), 1, random.Random(0))


def test_shots_of_both_splits(tmp_path: Path) -> None:
    shapes = Shapes(World(), train=400, val=300, test=100)
    found = records(shapes, shots=5)
    train, val = found.table("train"), found.table("val")
    assert {*counts(train).values()} == {5}
    assert {*counts(val).values()} == {4}
    assert found.table("test").equals(found.source_table("test"))  # type: ignore[union-attr]
    assert records(shapes, shots=5).table("train").equals(train)  # type: ignore[union-attr]
    assert not records(shapes, shots=5, seed=1).table("train").equals(train)  # type: ignore[union-attr]
    assert {*counts(records(shapes, shots=2).table("val")).values()} == {2}
    # Whatever is asked for first, the same is drawn.
    again = records(shapes, shots=5)
    assert again.table("val").equals(val)  # type: ignore[union-attr]
    assert again.table("train").equals(train)  # type: ignore[union-attr]


def test_halves_of_classes() -> None:
    assert chosen_classes("abcde", "base") == ["a", "b", "c"]
    assert chosen_classes("abcde", "new") == ["d", "e"]
    assert chosen_classes("abcd", "base") == ["a", "b"]
    assert chosen_classes("abcde", "all") == [*"abcde"]


def test_base_and_new_classes_are_in_label_order_and_drawn_alike(tmp_path: Path) -> None:
    """The order is that of the labels' numbers; shots are drawn before classes are cut, as CoOp does it."""
    LAYOUTS["oxford_pets"].write(tmp_path)
    source = LAYOUTS["oxford_pets"].source(tmp_path)
    base, new, whole = (records(source, shots=2, classes=which) for which in ("base", "new", "all"))
    assert counts(base.table("train")) == {"pug": 2, "Abyssinian cat": 2}
    assert counts(new.table("train")) == {"leonberger": 2}
    assert counts(base.table("test")) == {"pug": 3, "Abyssinian cat": 3}
    assert counts(new.table("test")) == {"leonberger": 3}
    together = [*base.table("train")["id"].to_pylist(), *new.table("train")["id"].to_pylist()]  # type: ignore[index]
    assert sorted(together) == sorted(whole.table("train")["id"].to_pylist())  # type: ignore[index]
    both = records(source, shots=2, classes="base", new_classes=True)
    assert len(counts(both.table("test"))) == 3
    assert len(counts(both.table("val"))) == 2


def test_classes_of_data_to_test_on_alone_are_refused(tmp_path: Path) -> None:
    LAYOUTS["imagenet_a"].write(tmp_path)
    source = LAYOUTS["imagenet_a"].source(tmp_path)
    with pytest.raises(RobustTuneError, match="data.splits.classes is new, and there is no training split"):
        records(source, classes="new").table("test")


@pytest.mark.parametrize(("name", "value"), [("shots", 0), ("subset", 0), ("val_fraction", 1.0), ("val_fraction", 0)])
def test_impossible_splits_are_refused(name: str, value: Any) -> None:
    with pytest.raises(RobustTuneError, match=rf"data\.splits\.{name} is {value}"):
        Splits(**{name: value})


def test_masks_withhold_sides(tmp_path: Path) -> None:
    write_table_copy(tmp_path)
    source = LAYOUTS["table"].source(tmp_path)
    found = records(source, missing={"train": Missing(rate=0.5, type="image"), "test": Missing(rate=1, type="text")})
    given, used = found.source_table("train"), found.table("train")
    shown = found.masks["train"].by_id()
    assert given is not None
    assert used is not None
    for column, place in (("image", 0), ("text", 1)):
        assert used[column].to_pylist() == [
            value if shown[sample_id][place] else None
            for sample_id, value in zip(given["id"].to_pylist(), given[column].to_pylist(), strict=True)
        ]
    assert used.schema.equals(given.schema)
    assert found.table("test")["text"].null_count == 6  # type: ignore[index]
    assert found.table("val").equals(found.source_table("val"))  # type: ignore[union-attr]
    assert found.table("predict")["text"].null_count == 6  # type: ignore[index]
    assert {*found.masks} == {"train", "test"}


def test_masks_are_of_the_samples_that_are_used() -> None:
    found = records(Shapes(train=100, val=30, test=60), subset=20, missing={"test": Missing(rate=0.5)})
    table = found.table("test")
    assert table is not None
    assert found.masks["test"].ids.to_pylist() == table["id"].to_pylist()
    assert (~found.masks["test"].present).sum() == 10


def test_tables_of_masks_by_row_and_by_id(tmp_path: Path) -> None:
    write_table_copy(tmp_path)
    source = LAYOUTS["table"].source(tmp_path)
    torch.save(torch.tensor([0.0, 1, 2, 0, 2, 1]), tmp_path / "test.pt")
    by_row = Missing(table=str(tmp_path / "test.pt"), codes=CODES)
    found = records(source, missing={"test": by_row})
    found.table("test")
    assert found.masks["test"].present[:, 0].tolist() == [True, True, False, True, False, True]
    write_mask(tmp_path / "test.parquet", found.masks["test"], {})
    by_id = records(source, missing={"test": Missing(table=str(tmp_path / "test.parquet"))})
    assert by_id.table("test").equals(found.table("test"))  # type: ignore[union-attr]
    # Rows are those of the file, also where a subset is used.
    part = records(source, subset=3, missing={"test": by_row})
    part.table("test")
    assert part.masks["test"].by_id().items() <= found.masks["test"].by_id().items()


def test_a_table_by_row_of_a_split_that_is_cut_is_refused(tmp_path: Path) -> None:
    write_table_copy(tmp_path)
    torch.save(torch.zeros(3), tmp_path / "val.pt")
    missing = {"val": Missing(table=str(tmp_path / "val.pt"), codes=CODES)}
    source = Table(train=str(tmp_path / "train.jsonl"))
    with pytest.raises(RobustTuneError, match="the val split is cut from train, and .* is a table by row"):
        records(source, val_fraction=0.25, missing=missing).table("val")


def test_missing_by_the_other_modality(tmp_path: Path) -> None:
    """Images of long texts, and texts of bright images, are missing more often."""
    rows = []
    for number in range(120):
        name = f"{number}.png"
        picture(tmp_path / name, number)
        grey = np.full((8, 8, 3), number * 2, dtype=np.uint8)
        from PIL import Image

        Image.fromarray(grey).save(tmp_path / name)
        rows.append({"image": name, "text": "x" * (1 + (number * 7) % 120), "label": str(number % 2)})
    jsonl(tmp_path / "test.jsonl", rows)
    source = Table(train=str(tmp_path / "test.jsonl"), test=str(tmp_path / "test.jsonl"))
    settings: Any = {"rate": 0.4, "depends_on": "other_modality"}
    for kind, values in {
        "image": {str(row + 1): len(rows[row]["text"]) for row in range(120)},
        "text": {str(row + 1): row for row in range(120)},
    }.items():
        found = records(source, missing={"test": Missing(type=kind, **settings)})  # type: ignore[arg-type]
        found.table("test")
        column = ("image", "text").index(kind)
        shown = {True: [], False: []}  # type: ignore[var-annotated]
        for sample_id, modalities in found.masks["test"].by_id().items():
            shown[modalities[column]].append(values[sample_id])
        assert np.mean(shown[False]) > np.mean(shown[True]) + 20  # three standard errors


def test_missing_by_label_is_of_this_split() -> None:
    shapes = Shapes(train=600, val=30, test=60)
    found = records(shapes, missing={"train": Missing(rate=0.5, type="text", depends_on="label")})
    table = found.table("train")
    assert table is not None
    absent = Counter(
        label
        for (label,), text in zip(table["labels"].to_pylist(), table["text"].to_pylist(), strict=True)
        if text is None
    )
    shares = sorted(absent[name] / count for name, count in counts(table).items())
    assert shares[0] < 0.2
    assert shares[-1] > 0.75


def test_a_mask_is_read_as_it_was_written() -> None:
    mask = Mask.of(["a", "b"], [[True, False], [False, True]])
    assert mask.by_id() == {"a": (True, False), "b": (False, True)}


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_protocol_for_data_of_one_modality_is_refused(tmp_path: Path, modality: str) -> None:
    """A modality would be lost with nothing left, or there is none to be lost."""
    write_table_copy(tmp_path)
    source = Table(train=str(tmp_path / "train.jsonl"), **{f"{modality}_column": None})  # type: ignore[arg-type]
    for kind in ("image", "text", "both"):
        with pytest.raises(RobustTuneError, match=f"no train sample has an? {modality}, .*data.missing.train"):
            records(source, missing={"train": Missing(rate=0.5, type=kind)}).table("train")


def test_only_what_is_asked_for_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table_copy(tmp_path)
    looked: list[Any] = []
    monkeypatch.setattr("robusttune.data.records.brightness", lambda names, reader: looked.append(names) or [0.0] * 12)
    settings: Any = {"rate": 0.5, "depends_on": "other_modality"}
    records(LAYOUTS["table"].source(tmp_path), missing={"train": Missing(type="image", **settings)}).table("train")
    assert not looked
    records(LAYOUTS["table"].source(tmp_path), missing={"train": Missing(type="text", **settings)}).table("train")
    assert len(looked) == 1


def test_a_mask_that_depends_on_images_needs_them_all(tmp_path: Path) -> None:
    write_table_copy(tmp_path)
    (tmp_path / "photos/train0.png").write_text("broken")
    settings: Any = {"rate": 0.5, "depends_on": "other_modality", "type": "text"}
    with pytest.raises(
        RobustTuneError, match=r"train0.png cannot be read .*, and data.missing depends on it: repair it"
    ):
        records(LAYOUTS["table"].source(tmp_path), missing={"train": Missing(**settings)}).table("train")
