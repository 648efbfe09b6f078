"""The Arrow files and the tables of missing modalities of MoRA's published code."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from robusttune.corruption.missing import Missing, MissingBySplit
from robusttune.corruption.published_tables import draw_tables
from robusttune.data.records import SplitRecords
from robusttune.data.sources import MoRAArrow
from robusttune.data.sources.mora_arrow import GENRES
from robusttune.data.splits import Splits
from robusttune.errors import RobustTuneError

CODES: Any = {0: "complete", 1: "no_text", 2: "no_image"}


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write(folder: Path, columns: dict[str, list[Any]], text: pa.DataType = pa.string()) -> MoRAArrow:  # noqa: B008
    """Write the same rows as every split, with texts of a type."""
    kinds = {"image": pa.binary(), "plots": pa.list_(text), "text": pa.list_(text), "genres": pa.list_(text)}
    table = pa.table({name: pa.array(cells, kinds.get(name)) for name, cells in columns.items()})
    for split in ("train", "val", "test"):
        with pa.OSFile(str(folder / f"{split}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    return MoRAArrow(str(folder))


def films() -> dict[str, list[Any]]:
    label = [[int(genre in genres) for genre in GENRES] for genres in (["Drama", "War"], [], ["Sci-Fi"])]
    return {
        "image": [png(number) for number in range(3)],
        "plots": [["a war.", "men fight."], [], ["robots."]],
        "label": label,
        "genres": [["War", "Drama", "News"], ["Adult"], ["Sci-Fi"]],
        "image_id": ["1", "2", "3"],
        "split": ["dev"] * 3,
    }


@pytest.mark.parametrize("text", [pa.string(), pa.large_string()], ids=str)
def test_each_plot_is_a_sample(tmp_path: Path, text: pa.DataType) -> None:
    source = write(tmp_path, films(), text)
    table = source.read("val")
    assert table is not None
    assert table["id"].to_pylist() == ["1.0", "1.1", "3.0"]
    assert table["text"].to_pylist() == ["a war.", "men fight.", "robots."]
    assert table["labels"].to_pylist() == [["Drama", "War"], ["Drama", "War"], ["Sci-Fi"]]
    pixels = [source.images.read(name).getpixel((0, 0)) for name in table["image"].to_pylist()]
    assert pixels == [(0, 0, 0), (0, 0, 0), (2, 0, 0)]
    assert source.multilabel
    assert source.class_names(table)[:3] == ["Drama", "Comedy", "Romance"]  # the order of the published head


def test_food101_and_hateful_memes(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {"image": [png(1), png(2)], "text": [["beef"], ["ramen"]], "label": [1, 0]}
    dishes = write(tmp_path, rows | {"image_id": ["beef_tartare_1.jpg", "ramen_20.jpg"]})
    table = dishes.read("train")
    assert table is not None
    assert table["labels"].to_pylist() == [["beef_tartare"], ["ramen"]]
    assert (dishes.class_names(table), dishes.multilabel) == (["ramen", "beef_tartare"], False)
    memes = write(tmp_path, rows)
    table = memes.read("test")
    assert table is not None
    assert table["labels"].to_pylist() == [["hateful"], ["not hateful"]]
    assert memes.class_names(table) == ["not hateful", "hateful"]


def test_a_published_table_has_an_entry_for_each_film(tmp_path: Path) -> None:
    source = write(tmp_path, films())
    torch.save(torch.tensor([2.0, 0.0, 1.0]), tmp_path / "mask.pt")
    torch.save(torch.zeros(4), tmp_path / "long.pt")
    missing = MissingBySplit(train=Missing(table=f"{tmp_path}/mask.pt", codes=CODES))
    table = SplitRecords(source, Splits(), missing, False, 0).table("train")
    assert table is not None
    assert table["text"].to_pylist() == ["a war.", "men fight.", None]
    assert [name is None for name in table["image"].to_pylist()] == [True, True, False]
    longer = MissingBySplit(train=Missing(table=f"{tmp_path}/long.pt", codes=CODES))
    with pytest.raises(RobustTuneError, match=r"is a table of shape \(4,\), and the split has 3 rows"):
        SplitRecords(source, Splits(), longer, False, 0).table("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": [[1, 0]] * 3}, "have a label that is no list of 23 numbers 0 or 1 .*row 1"),
        ({"genres": [["War"], [], ["Sci-Fi"]]}, "1 have other genres than their label .*row 1"),
    ],
)
def test_other_rows_are_refused(tmp_path: Path, change: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        write(tmp_path, films() | change).read("train")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match="has the columns image, label: give a file of MoRA's code"):
        write(tmp_path, {"image": [png(1)], "label": [1]})
    with pytest.raises(RobustTuneError, match=r"train.arrow does not exist: set data.source.root"):
        MoRAArrow(str(tmp_path / "nowhere"))


def digits(table: Any) -> str:
    return "".join(map(str, table.tolist()))


def sha256(table: Any) -> str:
    return hashlib.sha256(table.astype(np.uint8).tobytes()).hexdigest()[:16]


def test_drawn_tables_are_the_published_ones() -> None:
    small = draw_tables({"train": 20, "val": 10, "test": 13}, "both", 0.7)
    assert [*map(digits, small.values())] == ["21120022102110011220", "2011102210", "1221112001002"]
    films = draw_tables({"train": 15_552, "val": 2_608, "test": 7_799}, "both", 0.7)
    assert [*map(sha256, films.values())] == ["9bc3c43bcb900bdc", "892fefc8a3cdaa53", "39c4ad3d8ff5fe66"]
    memes = draw_tables({"train": 8_500, "val": 500, "test": 1_000}, "both", 0.7)
    assert [*map(sha256, memes.values())] == ["e53c224bfc026f24", "99ac3826ff787723", "6406380f82be2df0"]
    assert {*digits(draw_tables({"train": 10}, "image", 0.5)["train"])} == {"0", "2"}
    assert {*digits(draw_tables({"train": 10}, "text", 0.5)["train"])} == {"0", "1"}
    assert {*digits(draw_tables({"train": 10}, "both", 0.0)["train"])} == {"0"}
