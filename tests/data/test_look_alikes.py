"""Class names that a reader takes for one, and files that no class has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fakes import write_image, write_table
from layouts import picture

from robusttune.data import ImageTextDataModule
from robusttune.data.look_alikes import look_alikes
from robusttune.data.sources import ImageFolder, Table
from robusttune.data.verify import verify
from robusttune.encoders import TimmEncoder, TransformersTextEncoder
from robusttune.errors import RobustTuneError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def data_of(source: Table, text_folder: Path) -> ImageTextDataModule:
    text = TransformersTextEncoder(name=str(text_folder), layers=2, max_length=16)
    return ImageTextDataModule(source, TimmEncoder(name="test_vit", weights="random"), text)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([COMPOSED, DECOMPOSED, "pie"], r"of 3 classes 2 differ .*: 'caf\xe9' and 'cafe\u0301'"),
        (["Pizza", "pizza", "PIZZA"], "of 3 classes 3 differ .*: 'Pizza' and 'pizza' and 'PIZZA'"),
        (["0", "0.0", "1"], "of 3 classes 2 differ .*: '0' and '0.0'"),
        (["7", "007", "7e0"], "of 3 classes 3 differ .*: '7' and '007' and '7e0'"),
        (["True", "TRUE", "False"], "of 3 classes 2 differ .*: 'True' and 'TRUE'"),
        (["hot dog", "hot  dog"], "of 2 classes 2 differ .*: 'hot dog' and 'hot  dog'"),
        (["stra\u00dfe", "strasse"], "of 2 classes 2 differ"),
    ],
)
def test_names_that_look_alike(names: list[str], said: str) -> None:
    found = look_alikes(names)
    assert found is not None
    start, _, end = said.partition(" .*")
    assert found.startswith(start)
    assert found.endswith(end.removeprefix(": "))


def test_other_names_do_not() -> None:
    assert look_alikes(["a", "b", "1", "2", "nan", "inf", "Nan bread", "caf\u00e9", "cafe", "1.5", "15"]) is None


def test_they_are_logged_before_a_fit_and_by_verify(
    tmp_path: Path, text_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"text": f"t{i}", "label": name} for i, name in enumerate(["Pizza", "pizza", "pie"] * 4)]
    source = Table(train=str(write_table(tmp_path, "train", rows)), image_column=None)
    note = (
        "of 3 classes 2 differ from another in case, Unicode form, spaces or number format alone: 'Pizza' and 'pizza'"
    )
    found = verify(data_of(source, text_folder), None, 1, lambda looks, _: looks)
    assert found.notes.count(note) == 1
    caplog.clear()
    data_of(source, text_folder).check("fit")
    assert f"{note}: correct the labels, unless they are different classes" in caplog.text


@pytest.mark.parametrize(
    ("known", "name", "said"),
    [
        (COMPOSED, DECOMPOSED, r"'cafe\\u0301' .training has 'caf\\xe9'. of '1'"),
        ("pizza", "Pizza", "'Pizza' .training has 'pizza'. of '1'"),
        ("0", "0.0", "'0.0' .training has '0'. of '1'"),
        ("True", "TRUE", "'TRUE' .training has 'True'. of '1'"),
        ("pizza", "pie", "'pie' of '1'"),
    ],
)
def test_a_label_that_training_does_not_know_is_reported_beside_the_one_it_looks_like(
    tmp_path: Path, text_folder: Path, known: str, name: str, said: str
) -> None:
    tables = {
        split: [{"text": "t", "label": label} for label in (of, "other")]
        for split, of in (("train", known), ("test", name))
    }
    paths = {split: str(write_table(tmp_path, split, rows * 4)) for split, rows in tables.items()}
    with pytest.raises(RobustTuneError, match=f"4 have a label that training does not know .the first: {said}"):
        data_of(Table(**paths, image_column=None), text_folder).check("fit")  # type: ignore[arg-type]


def test_what_a_fit_refuses_verify_finds(tmp_path: Path, text_folder: Path) -> None:
    """Such as data of which nothing is left to validate on, or of one class."""
    rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(24)]
    for few, message in ((rows[:3], "leaves a split empty"), (rows[::2], "the training split has 1 class")):
        source = Table(train=str(write_table(tmp_path, "train", few)), image_column=None)
        with pytest.raises(RobustTuneError, match=message):
            data_of(source, text_folder).check("fit")
        found = verify(data_of(source, text_folder), None, 1, lambda looks, _: looks)
        assert any(message in line for line in found.problems)


def folder_of(root: Path) -> Path:
    """Two classes of three images, with what cameras, network drives and archives leave beside them."""
    for label in ("cat", "dog"):
        for number in range(3):
            picture(root / label / f"{number}.png", number)
        for number in range(4):
            shutil.copy(root / label / "0.png", root / label / f"{number}.HEIC")
    (root / "dog/photo").touch()
    for thumbnail in ("cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "cat/__MACOSX/0.png", "__MACOSX/cat/0.png"):
        picture(root / thumbnail, 0)
    for other in ("Thumbs.db", "dog/desktop.ini", ".DS_Store", "cat/._0.png"):
        (root / other).touch()
    return root


def test_files_that_are_left_out_of_folders_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = ImageFolder(train=str(folder_of(tmp_path / "train"))).read("train")
    assert table is not None
    assert table["id"].to_pylist() == [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(3)]
    said = f"{tmp_path}/train: of 15 files 9 are no images by their endings (.HEIC 8, none 1), and are left out"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_images_beside_the_folders_of_classes_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("soup/0.png", "pie/0.png", "b.png", "a.JPG"):
        picture(tmp_path / "train" / name, 0) if name.endswith("png") else shutil.copy(
            write_image(tmp_path / "x.png"), tmp_path / "train" / name
        )
    ImageFolder(train=str(tmp_path / "train")).read("train")
    assert "train has 2 image files beside the folders of classes, such as 'a.JPG': they are left out" in caplog.text
