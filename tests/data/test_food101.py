"""UPMC Food-101: the habits of the real title files."""

from __future__ import annotations

import csv
import logging
import shutil
from pathlib import Path

import pytest

from robusttune.data.sources import Food101
from robusttune.data.sources.food101 import clean_title, parse_titles
from robusttune.errors import RobustTuneError

TITLES = [
    ("apple_pie_0.jpg", "Apple Pie", "apple_pie", "Apple Pie"),
    ("apple_pie_1.jpg", "Mom&#39;s pie, the best", "apple_pie", "Mom's pie, the best"),
    ("apple_pie_2.jpg", "Pie &amp;rsquo; twice &amp;amp; thrice", "apple_pie", "Pie ’ twice & thrice"),
    ("ramen_0.jpg", '[["Ramen | Food"]]', "ramen", "Ramen | Food"),
    ("ramen_1.jpg", 'A "quoted" one', "ramen", 'A "quoted" one'),
    ("ramen_2.jpg", "two\nlines", "ramen", "two lines"),
    ("ramen_3.jpg", "   ", "ramen", None),
    ("ramen_4.jpg", "Apple Pie", "ramen", "Apple Pie"),
]


def write_layout(root: Path, newline: str = "\n") -> Path:
    for split in ("train", "test"):
        for image, _, label, _ in TITLES:
            (root / "images" / split / label).mkdir(parents=True, exist_ok=True)
            (root / "images" / split / label / image).touch()
        (root / "texts").mkdir(exist_ok=True)
        with (root / "texts" / f"{split}_titles.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator=newline).writerows(row[:3] for row in TITLES)
    return root


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_every_habit_is_read(tmp_path: Path, newline: str, mark: bytes) -> None:
    root = write_layout(tmp_path, newline)
    titles = root / "texts" / "train_titles.csv"
    titles.write_bytes(mark + titles.read_bytes())
    table = Food101(str(root)).read("train")
    assert table is not None
    assert table["id"].to_pylist() == [row[0] for row in TITLES]
    assert table["text"].to_pylist() == [row[3] for row in TITLES]
    assert table["labels"].to_pylist() == [[row[2]] for row in TITLES]
    assert all(Path(path).is_file() for path in table["image"].to_pylist())


def test_has_no_validation_split(tmp_path: Path) -> None:
    assert Food101(str(write_layout(tmp_path))).read("val") is None


def test_a_quote_that_never_closes_swallows_nothing() -> None:
    text = 'apple_pie_0.jpg,"open, and on,apple_pie\nramen_0.jpg,Ramen,ramen\nramen_1.jpg,"x, y",ramen\n'
    rows = parse_titles(text)
    assert [(row.image, row.title) for row in rows] == [
        ("apple_pie_0.jpg", "open, and on"),
        ("ramen_0.jpg", "Ramen"),
        ("ramen_1.jpg", "x, y"),
    ]


@pytest.mark.parametrize(
    ("text", "understood", "lost"),
    [
        ("", 0, 0),
        ("garbage\n", 0, 1),
        ("garbage\nramen_0.jpg,Ramen,ramen\n", 1, 1),
        ("ramen_0.jpg,Ramen,ramen\nleft over\nramen_1.jpg,Ramen,ramen", 2, 1),
        ("ramen_0.jpg,Ramen,soup\nramen_1.jpg,Ramen,ramen\n", 1, 1),
        ("ramen_0.jpg,ramen\n", 0, 1),
    ],
)
def test_what_cannot_be_understood_is_kept_count_of(text: str, understood: int, lost: int) -> None:
    labels = [row.label for row in parse_titles(text)]
    assert (len(labels) - labels.count(None), labels.count(None)) == (understood, lost)


def test_titles_stay_as_they_are_otherwise() -> None:
    assert clean_title("Crème brûlée 🍮 – 5 < 6") == "Crème brûlée 🍮 – 5 < 6"


def test_rows_that_are_left_out_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_layout(tmp_path)
    (root / "images/train/ramen/ramen_0.jpg").unlink()
    with (root / "texts/train_titles.csv").open("a") as file:
        file.write("apple_pie_0.jpg,again,apple_pie\nwhat is this\n")
    with caplog.at_level(logging.WARNING):
        table = Food101(str(root)).read("train")
    assert table is not None
    assert len(table) == len(TITLES) - 1
    assert "1 of 10 rows name no image there is, left out; first: ramen_0.jpg" in caplog.text
    assert "1 of 10 rows repeat an image" in caplog.text
    assert "1 of 10 rows cannot be understood" in caplog.text


@pytest.mark.parametrize("part", ["images/train", "images/test", "texts/train_titles.csv", "texts/test_titles.csv"])
def test_a_missing_part_is_named(tmp_path: Path, part: str) -> None:
    root = write_layout(tmp_path)
    shutil.rmtree(root / part) if (root / part).is_dir() else (root / part).unlink()
    with pytest.raises(RobustTuneError, match=f"{part} does not exist: set data.source.root"):
        Food101(str(root))


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    root = write_layout(tmp_path)
    (root / "texts/train_titles.csv").write_bytes(b"ramen_0.jpg,\xff\xfe,ramen")
    with pytest.raises(RobustTuneError, match=r"train_titles.csv is not UTF-8 \(byte 12\)"):
        Food101(str(root)).read("train")
