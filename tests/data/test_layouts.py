"""Every data set in its own layout, and the habits of real copies."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from layouts import (
    LAYOUTS,
    VARIANTS,
    WNIDS,
    jsonl,
    write_classnames,
    write_hateful_memes,
    write_mmimdb_hdf5,
    write_snli_ve,
)

from robusttune.data.sources import SNLIVE, FGVCAircraft, HatefulMemes, MMIMDb, MMIMDbHDF5, Source, Table
from robusttune.data.sources.mmimdb import GENRES
from robusttune.errors import RobustTuneError

Make = Callable[[str], tuple[Path, Source]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A copy of a data set by name, and what reads it."""

    def copy(name: str) -> tuple[Path, Source]:
        LAYOUTS[name].write(tmp_path)
        return tmp_path, LAYOUTS[name].source(tmp_path)

    return copy


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read(make: Make, name: str) -> None:
    _, source = make(name)
    reader = pickle.loads(pickle.dumps(source.images))  # as a worker process has it
    for split, samples in zip(("train", "val", "test"), LAYOUTS[name].samples, strict=True):
        table = source.read(split)  # type: ignore[arg-type]
        assert (None if table is None else len(table)) == samples
        if table is None:
            continue
        ids, images = table["id"].to_pylist(), table["image"].drop_null().to_pylist()
        assert len({*ids}) == len(ids)
        assert not reader.missing(images)
        assert {reader.read(name).mode for name in images} <= {"RGB"}
        names = source.class_names(table)
        assert len({*names}) == len(names)
        assert {label for labels in table["labels"].to_pylist() for label in labels} <= {*names}
        assert source.read(split).equals(table)  # type: ignore[arg-type, union-attr]


def test_imdb_takes_the_longest_plot_and_drops_rare_genres(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    root, source = make("mmimdb")
    with caplog.at_level(logging.WARNING):
        table = source.read("train")
    assert table is not None
    assert table["text"][0].as_py() == "Film 0 tells of a dish."
    assert table["labels"].to_pylist()[:2] == [[GENRES[0], GENRES[-1]], []]
    assert "1 of 6 films have rare genres" in caplog.text
    assert "1 films now have no genre" in caplog.text
    assert source.class_names(table) == sorted(GENRES)
    assert len(GENRES) == 23
    dropped = MMIMDb(str(root), "drop_film").read("train")
    assert dropped is not None
    assert dropped["id"].to_pylist() == [i for i in table["id"].to_pylist() if i != "0000001"]


def test_imdb_ids_may_be_numbers_and_plots_absent(make: Make) -> None:
    root, source = make("mmimdb")
    splits = json.loads((root / "split.json").read_text())
    (root / "split.json").write_text(json.dumps({name: [int(i) for i in ids] for name, ids in splits.items()}))
    for name, plot in {"0000000": [], "0000002": ["  "], "0000003": "One plot."}.items():
        path = root / f"dataset/{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"plot": plot}))
    table = source.read("train")
    assert table is not None
    assert table["id"][0].as_py() == "0000000"
    assert [table["text"][row].as_py() for row in (0, 2, 3)] == [None, None, "One plot."]


@pytest.mark.parametrize("centred", [True, False])
def test_hdf5_posters_and_genres_are_put_right(tmp_path: Path, centred: bool) -> None:
    """Channels, the means that were taken off, and the order of genres; exactly, though numbers were cut off."""
    write_mmimdb_hdf5(tmp_path, centred)
    source = MMIMDbHDF5(str(tmp_path), (6, 2, 2))
    table = source.read("val")
    assert table is not None
    with h5py.File(tmp_path / "multimodal_imdb.hdf5") as file:
        by_frequency = json.loads(file["genres"].attrs["target_names"])
    assert [sorted(labels) for labels in table["labels"].to_pylist()] == [
        sorted(by_frequency[row : row + 2]) for row in (6, 7)
    ]
    assert table["id"].to_pylist() == ["0000006", "0000007"]
    assert table["text"].to_pylist() == ["a film of dishes 6", "a film of dishes 7"]
    for row, name in zip((6, 7), table["image"].to_pylist(), strict=True):
        image = source.images.read(name)
        assert image.size == (160, 256)
        red, green, blue = np.asarray(image)[0, 0].tolist()
        assert (red, green, blue) == (row, 10, 200)


def test_hdf5_pixels_come_back_exactly(tmp_path: Path) -> None:
    write_mmimdb_hdf5(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 256, 160))  # red, green, blue
    centred = pixels[::-1].astype(np.float32) - np.array([103.939, 116.779, 123.68], dtype=np.float32)[:, None, None]
    with h5py.File(tmp_path / "multimodal_imdb.hdf5", "a") as file:
        file["images"][3] = centred  # HDF5 cuts off what is behind the point
    found = np.asarray(MMIMDbHDF5(str(tmp_path), (6, 2, 2)).images.read("3")).astype(int)
    assert np.abs(found - pixels.transpose(1, 2, 0)).max() <= 1
    assert (found == pixels.transpose(1, 2, 0)).mean() > 0.99


def test_a_vocabulary_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    write_mmimdb_hdf5(tmp_path)
    np.save(tmp_path / "metadata.npy", np.array({"ix_to_word": Evil()}, dtype=object), allow_pickle=True)
    with pytest.raises(RobustTuneError, match=r"metadata.npy holds no vocabulary \(it names (posix|nt)"):
        MMIMDbHDF5(str(tmp_path), (6, 2, 2)).read("train")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["Flickr30K_ID", "Flikr30kID", "Flickr30kID"])
@pytest.mark.parametrize("folder", ["images", "flickr30k_images"])
def test_snli_ve_spellings(tmp_path: Path, key: str, folder: str) -> None:
    write_snli_ve(tmp_path, key, folder)
    source = SNLIVE(str(tmp_path))
    table = source.read("val")
    assert table is not None
    assert not source.images.missing(table["image"].to_pylist())
    assert table["text"][0].as_py() == "A cook makes dish 0 of dev."
    assert source.class_names(table) == ["entailment", "neutral", "contradiction"]


@pytest.mark.parametrize("padded", [True, False])
def test_ids_of_memes_are_the_same_in_all_releases(tmp_path: Path, padded: bool) -> None:
    write_hateful_memes(tmp_path, padded)
    table = HatefulMemes(str(tmp_path)).read("train")
    assert table is not None
    assert table["id"].to_pylist()[0] == "00001"
    assert table["labels"].to_pylist()[:2] == [["hateful"], ["not hateful"]]


def test_memes_without_labels_are_there_to_predict(tmp_path: Path) -> None:
    write_hateful_memes(tmp_path, labelled=False)
    source = HatefulMemes(str(tmp_path), test="test_unseen")
    assert source.read("test") is None
    found = source.read("predict")
    assert found is not None
    assert found["labels"].null_count == len(found) == 4
    write_hateful_memes(tmp_path)
    assert HatefulMemes(str(tmp_path)).read("predict") is None


def test_coop_labels_are_in_the_order_of_their_numbers(make: Make) -> None:
    _, source = make("oxford_pets")
    table = source.read("test")
    assert table is not None
    assert source.class_names(table) == ["pug", "Abyssinian cat", "leonberger"]
    assert source.class_names(table.slice(0, 3)) == ["pug"]


def test_variants_of_aircraft_hold_spaces_and_slashes(make: Make) -> None:
    _, source = make("fgvc_aircraft")
    table = source.read("train")
    assert table is not None
    assert source.class_names(table) == [*VARIANTS]
    assert table["labels"][0].as_py() == ["F-16A/B"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["imagenet", "imagenet_v2", "imagenet_a"])
def test_labels_of_imagenet_follow_the_id(make: Make, name: str, newline: str) -> None:
    root, _ = make(name)
    write_classnames(root, newline)
    source = LAYOUTS[name].source(root)
    table = source.read("test")
    assert table is not None
    for path, (label,) in zip(table["image"].to_pylist(), table["labels"].to_pylist(), strict=True):
        folder = Path(path).parent.name
        wnid = WNIDS[int(folder)] if folder.isdecimal() else folder
        assert (
            label
            == {
                "n01440764": "tench",
                "n02012849": "crane [n02012849]",
                "n03126707": "crane [n03126707]",
                "n03710637": "maillot [n03710637]",
                "n03710721": "maillot [n03710721]",
            }[wnid]
        )
    assert len(source.class_names(table)) == (3 if name == "imagenet_a" else 5)


def test_images_at_any_depth_and_nothing_else(make: Make) -> None:
    _, source = make("image_folder")
    table = source.read("train")
    assert table is not None
    assert table["id"].to_pylist()[:2] == ["pie/0.png", "pie/2.png"]
    assert {Path(i).suffix for i in table["id"].to_pylist()} == {".png"}


def test_hugging_face_names_presence_and_order(make: Make) -> None:
    _, source = make("hugging_face")
    table = source.read("train")
    assert table is not None
    assert table["image"].null_count == 3
    assert table["text"].null_count == 2
    assert source.class_names(table) == ["soup", "pie"]  # as the data set numbers them
    digests = {source.images.digest(name) for name in table["image"].drop_null().to_pylist()}
    assert len(digests) == 9


def test_paths_of_a_table_stay_in_its_folder_unless_they_are_absolute(tmp_path: Path) -> None:
    def read(image: str, **settings: Any) -> list[str]:
        jsonl(tmp_path / "deep/train.jsonl", [{"image": image, "text": "x", "label": "y"}])
        table = Table(train=str(tmp_path / "deep/train.jsonl"), **settings).read("train")
        assert table is not None
        found: list[str] = table["image"].to_pylist()
        return found

    elsewhere = str(tmp_path / "a/b.png")
    assert read(elsewhere) == [elsewhere]
    assert read("c/../b.png") == [str(tmp_path / "deep/b.png")]
    assert read("a/b.png", image_root=str(tmp_path)) == [elsewhere]
    assert read(elsewhere, image_root=str(tmp_path)) == [elsewhere]
    for image, settings in (("../a/b.png", {}), (elsewhere, {"image_root": str(tmp_path / "deep")})):
        with pytest.raises(RobustTuneError, match="of 1 rows, 1 name an image outside of the folder of images"):
            read(image, **settings)


def test_aircraft_without_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match=r"variants.txt does not exist: set data.source.root"):
        FGVCAircraft(str(tmp_path))


@pytest.mark.parametrize(("val", "test"), [("dev_unseen", "test_unseen"), ("dev", "test"), (None, None)])
def test_files_of_hateful_memes_are_settings(tmp_path: Path, val: Any, test: Any) -> None:
    """Copies have the files of one phase of the challenge, or of the other."""
    write_hateful_memes(tmp_path)
    for unseen in ("dev_unseen", "test_unseen"):
        (tmp_path / f"{unseen}.jsonl").unlink()
    for split, name in (("dev_seen", val), ("test_seen", test)):
        (tmp_path / f"{split}.jsonl").rename(tmp_path / f"{name or 'other'}.jsonl")
    source = HatefulMemes(str(tmp_path), val, test)
    sizes = [None if (table := source.read(split)) is None else len(table) for split in ("train", "val", "test")]
    assert sizes == [8, 4 if val else None, 4 if test else None]
    has = ", ".join(["train", *([val] if val else []), *([test] if test else [])])
    with pytest.raises(RobustTuneError, match=f"has no dev_seen.jsonl .it has {has}.: set data.source.val to one that"):
        HatefulMemes(str(tmp_path))
    if val:
        with pytest.raises(
            RobustTuneError, match=f"has no test_seen.jsonl .it has {has}.: set data.source.test to one"
        ):
            HatefulMemes(str(tmp_path), val)


def test_labels_of_minus_one_are_none(tmp_path: Path) -> None:
    write_hateful_memes(tmp_path)
    rows = [json.loads(line) | {"label": -1} for line in (tmp_path / "test_seen.jsonl").read_text().splitlines()]
    jsonl(tmp_path / "test_seen.jsonl", rows)
    source = HatefulMemes(str(tmp_path))
    table = source.read("predict")
    assert source.read("test") is None
    assert table is not None
    assert table["labels"].to_pylist() == [None] * 4
