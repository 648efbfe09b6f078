"""What is found of copies: whole ones, and ones with each thing wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import grouped, tiny_image_encoder, tiny_text_encoder
from layouts import LAYOUTS, jsonl, picture, write_hateful_memes, write_table_copy
from PIL import Image

from robusttune.data import ImageTextDataModule, Missing, MissingBySplit, Splits
from robusttune.data.sources import CoOp, HatefulMemes, Published, Source, Table
from robusttune.data.verify import Verification, verify

Check = Callable[..., Verification]


@pytest.fixture
def check(text_folder: Path) -> Check:
    def found(source: Source, near_bits: int | None = None, **settings: Any) -> Verification:
        encoders = tiny_image_encoder(), tiny_text_encoder(text_folder, max_length=6)
        data = ImageTextDataModule(source, *encoders, **grouped(workers=0, **settings))
        return verify(data, near_bits, threads=2, watch=lambda looks, total: looks)

    return found


# What a made-up copy cannot have: published counts, unless they are its own.
NOT_PUBLISHED = ("fewer than the", "as published", "with another number of samples than published")


@pytest.mark.parametrize("name", LAYOUTS)
def test_good_copies(check: Check, tmp_path: Path, name: str) -> None:
    LAYOUTS[name].write(tmp_path)
    found = check(LAYOUTS[name].source(tmp_path))
    assert not [line for line in found.problems if not any(part in line for part in NOT_PUBLISHED)]
    for split, samples in zip(("train", "val", "test"), LAYOUTS[name].samples, strict=True):
        if samples is None:
            assert split not in found.splits
            continue
        counted = found.splits[split]
        assert counted["samples"] == samples
        assert sum(counted[key] for key in ("complete", "image_only", "text_only", "neither")) == samples
    json.dumps(found.__dict__)
    if name == "imagenet":
        assert any(
            "10 images of test also in val" in note and "validates on its test samples" in note for note in found.notes
        )


def test_counts_against_the_published(check: Check, tmp_path: Path) -> None:
    LAYOUTS["oxford_pets"].write(tmp_path)
    source = LAYOUTS["oxford_pets"].source(tmp_path)
    assert isinstance(source, CoOp)
    right = Published({"train": 12, "val": 6, "test": 9}, 3, {"train": 4, "val": 2, "test": 3})
    assert check(replace(source, published=right)).problems == []
    about = check(replace(source, published=replace(right, samples={"train": 13}, approximate={"train": 0.1})))
    assert about.problems == []
    assert "train has 12 samples, 1 fewer than the 13 published (good copies differ by up to 10%)" in about.notes
    other = Published({"train": 13}, 4, {"train": 5}, {"test": {"pug": 3, "leonberger": 2, "gone": 1}})
    assert check(replace(source, published=other)).problems == [
        "train has 12 samples, 1 fewer than the 13 published",
        "the data has 3 classes, not 4 as published",
        "3 classes of train with another number of samples than published, the first is 'pug' 4, not 5",
        "2 classes of test with another number of samples than published, the first is 'leonberger' 3, not 2",
    ]


def test_whole_splits_are_looked_at_whatever_is_used_of_them(check: Check, tmp_path: Path) -> None:
    LAYOUTS["oxford_pets"].write(tmp_path)
    found = check(LAYOUTS["oxford_pets"].source(tmp_path), splits=Splits(shots=1, classes="base"))
    assert {split: counts["samples"] for split, counts in found.splits.items()} == {"train": 12, "val": 6, "test": 9}
    assert not found.problems


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A good copy in the layout of a table."""
    write_table_copy(tmp_path)
    return tmp_path


def source_of(root: Path) -> Source:
    return LAYOUTS["table"].source(root)


def add(root: Path, split: str, **row: str) -> None:
    with (root / f"{split}.jsonl").open("a") as file:
        file.write(json.dumps({"id": "extra", "label": "pie", "text": "", "image": ""} | row) + "\n")


def spoil_missing(root: Path) -> None:
    (root / "photos/test0.png").unlink()
    (root / "photos/val1.png").unlink()


def spoil_broken(root: Path) -> None:
    path = root / "photos/test0.png"
    path.write_bytes(path.read_bytes()[:60])


def spoil_leak(root: Path) -> None:
    shutil.copy(root / "photos/train0.png", root / "photos/renamed.png")
    add(root, "test", image="photos/renamed.png", text="another text")


def spoil_text_leak(root: Path) -> None:
    add(root, "train", text="a text alone")
    add(root, "val", text="a text alone")


def spoil_contradiction(root: Path) -> None:
    add(root, "train", image="photos/train0.png", text="dish 0 of train", label="pie")


def spoil_label(root: Path) -> None:
    add(root, "val", text="y", label="ramen")


def spoil_row(root: Path) -> None:
    with (root / "test.jsonl").open("a") as file:
        file.write("{\n")


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing images": (spoil_missing, r"2 of 19 images not found, the first is .*/photos/test0.png"),
    "a broken image": (spoil_broken, r"1 of 19 images unreadable, the first: .*test0.png cannot be read as an"),
    "an image in two splits": (spoil_leak, r"1 image of test also in train, such as '7' \('1' in train\)"),
    "a text in two splits": (spoil_text_leak, r"1 sample without image of val also in train, such as '7'"),
    "two labels": (
        spoil_contradiction,
        r"1 sample repeated with other labels, the first is '13' of train, equal to '1'",
    ),
    "an unknown label": (spoil_label, r"the val split: of 7 samples, 1 have a label that training does not know"),
    "a bad row": (spoil_row, r"test.jsonl: of 7 rows, 1 are not JSON \(the first: line 7,"),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_thing_that_is_wrong_is_reported(check: Check, copy: Path, case: str) -> None:
    spoil, message = WRONG[case]
    assert check(source_of(copy)).problems == []
    spoil(copy)
    found = check(source_of(copy)).problems
    assert len(found) == 1
    assert re.search(message, found[0])


def test_samples_that_come_again_are_reported_and_are_not_wrong(check: Check, copy: Path) -> None:
    add(copy, "train", image="photos/train0.png", text="dish 0 of train", label="soup")
    add(copy, "train", image="photos/train0.png", text="other words", label="soup")
    found = check(source_of(copy))
    assert not found.problems
    assert "1 sample of train repeated, image and text" in found.notes
    assert found.splits["train"]["repeated_images"] == 2


def test_near_duplicates_are_reported(check: Check, copy: Path) -> None:
    Image.open(copy / "photos/train0.png").resize((40, 32), Image.Resampling.NEAREST).save(copy / "photos/larger.png")
    add(copy, "test", image="photos/larger.png", text="x")
    assert "near_pairs" not in check(source_of(copy)).images
    found = check(source_of(copy), near_bits=8)
    assert not found.problems
    assert found.images["near_pairs_across_splits"] == 1
    assert any("nearly equal images" in note and "larger.png" in note for note in found.notes)


def test_texts_that_would_be_cut(check: Check, copy: Path) -> None:
    rows = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(["apple pie", "apple " * 10, "pie " * 5, ""])]
    jsonl(copy / "train.jsonl", rows)
    found = check(Table(train=str(copy / "train.jsonl"), image_column=None))
    counts = found.splits["train"]
    assert counts["max_length"] == 6
    assert counts["tokens_max"] == 12  # with the two special ones
    assert counts["tokens_median"] == 7
    assert counts["texts_cut"] == 2
    assert counts["tokens_cut"] == 6 + 1
    assert counts["neither"] == 1


def test_hashes_tell_contents_and_not_places(
    check: Check, copy: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = check(source_of(copy)).splits
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(copy, elsewhere)
    assert {name: split["hash"] for name, split in check(source_of(elsewhere)).splits.items()} == {
        name: split["hash"] for name, split in first.items()
    }
    picture(elsewhere / "photos/test0.png", 999)
    changed = check(source_of(elsewhere)).splits
    assert changed["test"]["hash"] != first["test"]["hash"]
    assert changed["train"]["hash"] == first["train"]["hash"]
    lines = (elsewhere / "train.jsonl").read_text().splitlines()
    (elsewhere / "train.jsonl").write_text("\n".join([lines[0].replace("soup", "pie"), *lines[1:]]) + "\n")
    assert check(source_of(elsewhere)).splits["train"]["hash"] != first["train"]["hash"]


def test_an_image_that_changes_while_it_is_read_is_reported(
    check: Check, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fstat, (changing,) = os.fstat, copy.rglob("test0.png")

    def look_then_write(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if os.path.samestat(found, changing.stat()):
            os.utime(changing, ns=(1, found.st_mtime_ns + 1))
        return found

    monkeypatch.setattr(os, "fstat", look_then_write)
    (wrong,) = check(source_of(copy)).problems
    assert "test0.png changed while it was read" in wrong


def test_protocols_are_applied(check: Check, copy: Path) -> None:
    missing = MissingBySplit(train=Missing(rate=0.5, type="text"), test=Missing(rate=1, type="image"))
    found = check(source_of(copy), missing=missing)
    assert found.splits["test"]["image_only"] == 1
    assert {split: mask["samples"] for split, mask in found.masks.items()} == {"train": 12, "test": 6}
    assert found.masks["test"]["complete"] == found.masks["test"]["image_only"] == 0
    assert len(found.masks["test"]["hash"]) == 16


def test_data_without_any_split(check: Check, copy: Path) -> None:
    for split in ("train", "val", "test"):
        (copy / f"{split}.jsonl").write_text("")
    found = check(source_of(copy))
    assert len(found.problems) == 3
    assert all("has no rows" in line for line in found.problems)


def test_what_a_whole_copy_has_twice_is_how_the_data_set_is(check: Check, tmp_path: Path) -> None:
    """Official copies share images across splits here and there; only where counts differ somebody has to mend it."""
    LAYOUTS["oxford_pets"].write(tmp_path)
    source = LAYOUTS["oxford_pets"].source(tmp_path)
    assert isinstance(source, CoOp)
    images = tmp_path / "oxford_pets/images"
    shutil.copy(images / "pug_train_0.jpg", images / "leonberger_test_0.jpg")
    shutil.copy(images / "pug_train_1.jpg", images / "leonberger_train_1.jpg")
    whole = Published({"train": 12, "val": 6, "test": 9}, 3)
    found = check(replace(source, published=whole))
    assert not found.problems
    assert any("1 image of test also in train" in note for note in found.notes)
    assert any("2 samples repeated with other labels" in note for note in found.notes)
    assert len(check(source).problems) == 2
    assert len(found.details["contradictions"]) == 2
    assert found.details["shared"] == [
        ("images", "train", "test", [("pug_train_0.jpg", "leonberger_test_0.jpg")]),
    ]


def test_samples_to_predict_are_looked_at_too(check: Check, tmp_path: Path) -> None:
    """Test samples of Hateful Memes without labels are counted as what they are."""
    write_hateful_memes(tmp_path, labelled=False)
    (tmp_path / "img/00015.png").write_text("broken")
    found = check(HatefulMemes(str(tmp_path)))
    assert found.splits["predict"]["samples"] == found.splits["predict"]["unlabelled"] == 4
    assert found.splits["predict"]["published"] == 1000
    assert any("test has 4 samples, 996 fewer than the 1,000 published" in line for line in found.problems)
    assert any("00015.png cannot be read" in line for line in found.problems)
    assert len(found.details["broken"]) == 1


def test_classes_that_nothing_is_of_are_missed(check: Check, tmp_path: Path) -> None:
    write_hateful_memes(tmp_path)
    for split in ("train", "dev_seen", "test_seen"):
        path = tmp_path / f"{split}.jsonl"
        path.write_text(path.read_text().replace('"label": 1', '"label": 0'))
    assert "the data has 1 class, not 2 as published" in check(HatefulMemes(str(tmp_path))).problems


def test_what_sources_leave_out_is_logged(check: Check, tmp_path: Path) -> None:
    LAYOUTS["food101"].write(tmp_path)
    next((tmp_path / "images/train/pho").iterdir()).unlink()
    notes = check(LAYOUTS["food101"].source(tmp_path)).notes
    assert any("of 48 rows, 1 name no image there is" in note for note in notes)


def test_near_duplicates_are_across_splits_whatever_comes_first(check: Check, copy: Path) -> None:
    """Of three that look alike, two in one split and one in another, each pair counts as what it is."""
    first = Image.open(copy / "photos/test0.png")
    for split, name, scale in (("test", "twice", 2), ("train", "thrice", 3)):
        size = (first.width * scale, first.height * scale)
        first.resize(size, Image.Resampling.NEAREST).save(copy / f"photos/{name}.png")
        add(copy, split, image=f"photos/{name}.png", text="x")
    found = check(source_of(copy), near_bits=8)
    assert found.images["near_pairs"] == 3
    assert found.images["near_pairs_across_splits"] == 2


def test_the_order_of_labels_does_not_matter(check: Check, tmp_path: Path) -> None:
    hashes = []
    for labels in (["a", "b"], ["b", "a"], ["a"]):
        jsonl(tmp_path / "train.jsonl", [{"text": "x", "label": labels}, {"text": "y", "label": ["a"]}])
        source = Table(train=str(tmp_path / "train.jsonl"), image_column=None, multilabel=True)
        hashes.append(check(source).splits["train"]["hash"])
    assert hashes[0] == hashes[1] != hashes[2]
