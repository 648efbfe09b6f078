"""Image cells of tables: paths, URLs and embedded images, and what is said of others."""

from __future__ import annotations

import base64
import csv
import io
import json
import multiprocessing
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import write_table
from PIL import Image

from robusttune.data.images import UnreadableImageError
from robusttune.data.sources import Table
from robusttune.errors import RobustTuneError
from robusttune.paths import cache_home

COLOURS = ["red", "lime", "blue"]


def encoded(colour: str, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(content, format=kind)
    return content.getvalue()


def base64_of(colour: str, kind: str = "PNG") -> str:
    return base64.b64encode(encoded(colour, kind)).decode()


def image_file(folder: Path, colour: str) -> Path:
    path = folder / f"{colour}.png"
    path.write_bytes(encoded(colour))
    return path


STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def jsonl(folder: Path, cells: list[Any]) -> Path:
    return write_table(folder, "train", [{"image": cell, "text": "t", "label": "x"} for cell in cells])


def csv_table(folder: Path, cells: list[Any]) -> Path:
    path = folder / "train.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "text", "label"], *([cell, "t", "x"] for cell in cells)])
    return path


def parquet(folder: Path, cells: list[Any], kind: pa.DataType) -> Path:
    path = folder / "train.parquet"
    table = {"image": pa.array(cells, kind), "text": ["t"] * len(cells), "label": ["x"] * len(cells)}
    pq.write_table(pa.table(table), path, row_group_size=2)
    return path


# What the cells hold, and how a table with them is written: each has a red, a lime and a blue image.
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "binary": lambda folder: parquet(folder, [*map(encoded, COLOURS)], pa.binary()),
    "large binary": lambda folder: parquet(folder, [*map(encoded, COLOURS)], pa.large_binary()),
    "bytes": lambda folder: parquet(folder, [{"bytes": encoded(c), "path": f"{c}.png"} for c in COLOURS], STRUCT),
    "paths in structs": lambda folder: parquet(
        folder, [{"bytes": None, "path": image_file(folder, c).name} for c in COLOURS], STRUCT
    ),
    "lists of binary": lambda folder: parquet(
        folder, [[encoded(c), encoded("white")] for c in COLOURS], pa.list_(pa.binary())
    ),
    "lists of structs": lambda folder: parquet(
        folder, [[{"bytes": encoded(c), "path": None}] for c in COLOURS], pa.list_(STRUCT)
    ),
    "lists of paths": lambda folder: parquet(
        folder, [["", image_file(folder, c).name, "no.png"] for c in COLOURS], pa.list_(pa.string())
    ),
    "base64 in Parquet": lambda folder: parquet(folder, [*map(base64_of, COLOURS)], pa.string()),
    "base64": lambda folder: jsonl(folder, [*map(base64_of, COLOURS)]),
    "base64 in lines": lambda folder: csv_table(
        folder, [base64.encodebytes(encoded(c, "JPEG")).decode() for c in COLOURS]
    ),
    "data URLs": lambda folder: csv_table(folder, [f"data:image/png;base64,{base64_of(c)}" for c in COLOURS]),
    "bytes in JSON": lambda folder: jsonl(folder, [{"bytes": base64_of(c), "path": None} for c in COLOURS]),
    "lists in JSON": lambda folder: jsonl(folder, [[None, base64_of(c), "no.png"] for c in COLOURS]),
    "lists in CSV": lambda folder: csv_table(folder, [json.dumps([image_file(folder, c).name]) for c in COLOURS]),
    "file URLs": lambda folder: csv_table(folder, [image_file(folder, c).as_uri() for c in COLOURS]),
    "mixed": lambda folder: jsonl(folder, [str(image_file(folder, "red")), base64_of("lime"), [base64_of("blue")]]),
}


def read(table: Path, **settings: Any) -> tuple[Table, list[str]]:
    source = Table(train=str(table), **settings)
    records = source.read("train")
    assert records is not None
    return source, records["image"].to_pylist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_read_from_their_cells(tmp_path: Path, layout: str) -> None:
    source, names = read(LAYOUTS[layout](tmp_path))
    assert len({*names}) == 3
    assert source.images.missing(names) == []
    reader = pickle.loads(pickle.dumps(source.images))
    for name, colour in zip(names, COLOURS, strict=True):
        found, expected = reader.read(name), Image.new("RGB", (40, 30), colour)
        assert abs(np.asarray(found, dtype=int) - np.asarray(expected, dtype=int)).max() < 3  # JPEG is not exact
    assert read(Path(source.train or ""))[1] == names  # the second time, what was copied is used again


def test_an_image_has_the_same_digest_wherever_it_is(tmp_path: Path) -> None:
    embedded, names = read(LAYOUTS["binary"](tmp_path))
    texts, others = read(LAYOUTS["data URLs"](tmp_path))
    assert names != others
    assert [*embedded.images.digests(names).values()] == [*texts.images.digests(others).values()]
    assert [*map(embedded.images.content, names)] == [*map(encoded, COLOURS)]


def test_names_say_where_an_image_is(tmp_path: Path) -> None:
    cells = [encoded("red"), encoded("red")[:60], b"no image"]
    source, names = read(parquet(tmp_path, cells, pa.binary()))
    with pytest.raises(UnreadableImageError, match=f"^row 2 of {tmp_path}/train.parquet .* cannot be read as an image"):
        source.images.read(names[1])
    with pytest.raises(UnreadableImageError, match="^row 3 of .*its format is not known"):
        source.images.read(names[2])


def test_blank_cells_have_no_image(tmp_path: Path) -> None:
    assert read(parquet(tmp_path, [None, b"", encoded("red")], pa.binary()))[1][:2] == [None, None]
    cells = [None, {"bytes": None, "path": None}, {"bytes": b"", "path": ""}]
    assert read(parquet(tmp_path, cells, STRUCT))[1] == [None] * 3
    assert read(jsonl(tmp_path, [None, "", [], [None, ""]]))[1] == [None] * 4


def test_several_columns_give_the_first_image(tmp_path: Path) -> None:
    cells = [("a.png", "b.png"), ("", "b.png"), ("a.png", ""), ("", "")]
    rows = [{"front": front, "back": back, "text": "t", "label": "x"} for front, back in cells]
    names = read(write_table(tmp_path, "train", rows), image_column=["back", "front"])[1]
    assert [name and Path(name).name for name in names] == ["b.png", "b.png", "a.png", None]


def test_another_state_of_a_table_is_read_anew(tmp_path: Path) -> None:
    source, before = read(LAYOUTS["binary"](tmp_path))
    other, after = read(parquet(tmp_path, [encoded("white")] * 3, pa.binary()))
    assert other.images.read(after[0]).getpixel((0, 0)) == (255, 255, 255)
    assert source.images.read(before[0]).getpixel((0, 0)) == (255, 0, 0)  # a run that has begun goes on as it was


def read_names(table: Path) -> list[str]:
    return read(table)[1]


def test_several_processes_copy_the_images_of_a_table_once(tmp_path: Path) -> None:
    table = LAYOUTS["binary"](tmp_path)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(read_names, [table] * 4, chunksize=1)
    assert found == [found[0]] * 4
    assert len([*(cache_home() / "images/tables").glob("*.pack")]) == 1
    assert not [*(cache_home() / "images/tables").glob(".*.partial")]


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_copies_leaves_no_copy(tmp_path: Path) -> None:
    images = [bytes(range(256)) * 400 + str(number).encode() for number in range(2000)]
    table = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": images, "label": ["x"] * len(images)}), table)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=Table(train=str(table), text_column=None).read, args=("train",))
    process.start()
    folder = cache_home() / "images/tables"
    while process.is_alive() and not any(path.stat().st_size > 10**6 for path in folder.glob(".*.partial")):
        time.sleep(0.001)
    process.kill()
    process.join()
    assert not [*folder.glob("*.pack")]
    source = Table(train=str(table), text_column=None)
    records = source.read("train")
    assert records is not None
    assert source.images.content(records["image"][1999].as_py()) == images[1999]


def test_a_copy_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    table = LAYOUTS["binary"](tmp_path)
    cache_home().parent.mkdir(exist_ok=True)
    cache_home().write_text("a file where a folder should be")
    with pytest.raises(RobustTuneError, match=r"cannot be copied to .*: make room, or set XDG_CACHE_HOME"):
        read(table)


def test_a_copy_that_was_removed_is_said(tmp_path: Path) -> None:
    source, names = read(LAYOUTS["binary"](tmp_path))
    for path in (cache_home() / "images/tables").iterdir():
        path.unlink()
    with pytest.raises(UnreadableImageError, match="copy in the cache folder was removed: start again"):
        source.images.read(names[0])


def test_damaged_parquet_leaves_no_copy(tmp_path: Path) -> None:
    table = tmp_path / "train.parquet"
    images = [bytes(range(256)) * 40 + bytes([number]) for number in range(200)]
    pq.write_table(pa.table({"image": images, "text": ["t"] * 200, "label": ["x"] * 200}), table)
    content = bytearray(table.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    table.write_bytes(content)
    with pytest.raises(RobustTuneError, match="no readable Parquet"):
        read(table)
    assert not [*(cache_home() / "images/tables").glob("*.pack*")]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("ftp://example.org/0.png", r"2 have a URL \(ftp://\) as image that is not read .*: download the images"),
        ("local:///etc/0.png", r"2 have a URL \(local://\) as image that is not read"),
        ("s3://a/b::file:///etc/0.png", r"2 have a URL \(s3://\) as image that is not read"),
        ("gs://bucket/0.png", r"2 have a URL \(gs://\) as image .*: pip install fsspec gcsfs"),
        ("file://server/0.png", "2 have a file:// URL of another machine .*: write file:///path"),
        ("x, y/" * 1300, "2 have a text as image that is neither a path nor base64"),
        ({"a": "b.png"}, "2 have neither a path, a URL nor an image in the column image"),
        ([["a.png"], 1.5], "2 have neither a path, a URL nor an image in the column image"),
    ],
)
@pytest.mark.parametrize("root", [True, False])
def test_what_is_no_image_is_said(tmp_path: Path, cell: Any, message: str, root: bool) -> None:
    with pytest.raises(RobustTuneError, match=message) as caught:
        read(jsonl(tmp_path, ["a.png", cell, cell]), image_root=str(tmp_path) if root else None)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("cell", ["file:///photos/0.png", "/photos/0.png", "../0.png", "file:///%2e%2e/0.png"])
def test_images_stay_within_their_folder(tmp_path: Path, cell: str) -> None:
    with pytest.raises(RobustTuneError, match="1 name an image outside of the folder of images"):
        read(jsonl(tmp_path, [cell]), image_root=str(tmp_path))
    table = parquet(tmp_path, [{"bytes": None, "path": cell}], STRUCT)
    with pytest.raises(RobustTuneError, match="1 name an image outside of the folder of images"):
        read(table, image_root=str(tmp_path))


@pytest.mark.parametrize(
    "name",
    ["data/0.png", "photos/UklGR.webp", "a b/c:d.png", "C:/photos/0.png", "qk/" * 40 + "0.png", "[1].png", "[1]"],
)
def test_paths_of_any_kind_are_paths(tmp_path: Path, name: str) -> None:
    assert read(jsonl(tmp_path, [name]))[1] == [str(tmp_path / name)]
