"""UPMC Food-101: the habits of the real title files."""

from __future__ import annotations

import csv
import io
import logging
import re
import shutil
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from robusttune.data.sources import Food101
from robusttune.data.sources.food101_titles import clean_title, parse_titles
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
    rows = parse_titles(text, (), {"apple_pie", "ramen"})
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
        ("ramen_0.jpg,Ramen\nramen_1.jpg,Ramen,ramen\n", 1, 1),
        ("left over\nand more\nramen_1.jpg,Ramen,ramen\n", 1, 2),
        ("ramen_0.jpg,ramen\n", 0, 1),
    ],
)
def test_what_cannot_be_understood_is_kept_count_of(text: str, understood: int, lost: int) -> None:
    labels = [row.label for row in parse_titles(text, (), {"ramen"})]
    assert (len(labels) - labels.count(None), labels.count(None)) == (understood, lost)


@pytest.mark.parametrize(
    ("title", "plain"),
    [
        ('[["Francine Segan', "Francine Segan"),
        ("[['Mom's pie", "Mom's pie"),
        ('[["Ramen | Food"', "Ramen | Food"),
        ('[["Ramen | Food"]', "Ramen | Food"),
        ('Ramen | Food"]]', "Ramen | Food"),
        ('["Ramen | Food"]]', "Ramen | Food"),
        ('[["Ramen", "Food"]]', "Ramen Food"),
        ("[[&amp;quot;Ramen&quot;]]", "Ramen"),
        ("[[]]", ""),
        ("]]", ""),
        ('[["', ""),
        ("Array [0] of [[ramen]] bowls", "Array [0] of [[ramen]] bowls"),
        ('Pie "deluxe"', 'Pie "deluxe"'),
    ],
)
def test_no_debris_of_a_wrapper_is_left(title: str, plain: str) -> None:
    assert clean_title(title) == plain


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
    assert (
        "of 10 rows, 1 name no image there is (the first: ramen_0.jpg), "
        "1 repeat an image (the first: apple_pie_0.jpg), "
        "1 cannot be understood (the first: what is this): they are left out"
    ) in caplog.text


def accounted(root: Path, caplog: pytest.LogCaptureFixture) -> tuple[int, int, int]:
    """Rows that the training file is said to have, rows that come out, rows that are reported."""
    caplog.clear()
    table = Food101(str(root)).read("train")
    assert table is not None
    total = re.search(r"of (\d+) rows", caplog.text)
    reported = [int(count) for count in re.findall(r"(?<=, )(\d+) (?=name no|repeat an|cannot be)", caplog.text)]
    return int(total[1]) if total else len(table), len(table), sum(reported)


titles = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    given_titles=st.lists(titles, min_size=1, max_size=8),
    newline=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    unclosed=st.integers(0, 8),
)
def test_every_row_comes_out_whatever_its_title(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    given_titles: list[str],
    newline: str,
    quoting: Any,
    unclosed: int,
) -> None:
    """Also with one quote that never closes."""
    assume(not any(",ramen" in title.replace('"', "") or '"' in title[-1:] for title in given_titles))
    rows = []
    for number, title in enumerate(given_titles):
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator=newline, quoting=quoting).writerow([f"ramen_{number}.jpg", title, "ramen"])
        is_quoted = number == unclosed and line.getvalue().count(',"')
        rows.append("".join(line.getvalue().rsplit('"', 1)) if is_quoted and quoting == 0 else line.getvalue())
    root = write_layout(tmp_path)
    for number in range(len(rows)):
        (root / f"images/train/ramen/ramen_{number}.jpg").touch()
    (root / "texts/train_titles.csv").write_text("".join(rows), newline="", encoding="utf-8")
    table = Food101(str(root)).read("train")
    assert table is not None
    assert table["text"].to_pylist() == [clean_title(title) or None for title in given_titles]
    assert accounted(root, caplog) == (len(rows), len(rows), 0)


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0\r"), min_size=1, max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(names.map("{}.jpg".format), titles), min_size=1, max_size=8, unique_by=lambda row: row[0]))
def test_every_row_comes_out_whatever_its_image_is_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: list[tuple[str, str]]
) -> None:
    root = write_layout(tmp_path)
    for name, _ in rows:
        (root / "images/train/ramen" / name).touch()
    with (root / "texts/train_titles.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([name, title, "ramen"] for name, title in rows)
    # Not a title of which a line is the beginning of another row.
    assume(
        not any(
            line.startswith((f"{name},", f'"{name}",')) for name, _ in rows for _, t in rows for line in t.split("\n")
        )
    )
    table = Food101(str(root)).read("train")
    assert table is not None
    assert table["id"].to_pylist() == [name for name, _ in rows]
    assert table["text"].to_pylist() == [clean_title(title) or None for _, title in rows]
    assert accounted(root, caplog) == (len(rows), len(rows), 0)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_image_names_of_the_real_files(tmp_path: Path, caplog: pytest.LogCaptureFixture, newline: str) -> None:
    """Names that end in other ways than ``_<number>.jpg``, next to each other and after a quote that never closes."""
    found = (
        "ramen_1-2.jpg",
        "ramen_717-10.jpg",
        "ramen.jpg",
        "IMG 4.jpeg",
        "r\u00e9_5.PNG",
        "a,b.jpg",
        "x",
        "y.tar.jpg",
    )
    root = write_layout(tmp_path)
    rows = []
    for name in found:
        (root / "images/train/ramen" / unicodedata.normalize("NFD", name)).touch()
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator=newline).writerow([name, f"Title of {name}, hot", "ramen"])
        rows.append(line.getvalue())
    rows.insert(2, f'ramen_0.jpg,"never closed, and on,ramen{newline}')
    (root / "texts/train_titles.csv").write_text("".join(rows), newline="", encoding="utf-8")
    table = Food101(str(root)).read("train")
    assert table is not None
    assert table["id"].to_pylist() == [*found[:2], "ramen_0.jpg", *found[2:]]
    assert table["text"][2].as_py() == "never closed, and on"
    assert all(Path(path).is_file() for path in table["image"].to_pylist())
    assert accounted(root, caplog) == (9, 9, 0)


def test_images_of_one_name_in_two_classes_are_two_samples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_layout(tmp_path)
    for label in ("apple_pie", "ramen"):
        (root / "images/train" / label / "1.jpg").touch()
    (root / "texts/train_titles.csv").write_text("1.jpg,Pie,apple_pie\n1.jpg,Soup,ramen\nramen_0.jpg,Soup,ramen\n")
    table = Food101(str(root)).read("train")
    assert table is not None
    assert table["id"].to_pylist() == ["apple_pie/1.jpg", "ramen/1.jpg", "ramen_0.jpg"]
    assert accounted(root, caplog) == (3, 3, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(['"', ",", "\n", "\r\n", "ramen_0.jpg", "ramen_1.jpg", "ramen", ",ramen\n", "[[", "&amp;"])
    )
)
def test_rows_in_are_rows_out_and_rows_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, parts: list[str]
) -> None:
    root = write_layout(tmp_path)
    parts = ["ramen_2.jpg,Ramen,ramen\n", *parts]
    (root / "texts/train_titles.csv").write_text("".join(parts), newline="")
    total, out, reported = accounted(root, caplog)
    assert total == out + reported
    starts = re.findall(r'^"?ramen_[012]\.jpg"?,', "".join(parts).replace("\r\n", "\n"), re.MULTILINE)
    assert total >= len(starts)


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = write_layout(tmp_path_factory.getbasetemp() / "any_bytes")
    (root / "texts/train_titles.csv").write_bytes(content)
    with suppress(RobustTuneError):
        assert Food101(str(root)).read("train") is not None


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
