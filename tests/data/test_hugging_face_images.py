"""Images in data sets of the Hugging Face library: features, bytes, texts and lists of them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from robusttune.data.images import UnreadableImageError
from robusttune.data.sources import HuggingFace
from robusttune.errors import RobustTuneError

COLOURS = ["red", "lime", "blue"]


def encoded(colour: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(content, format="PNG")
    return content.getvalue()


def saved(folder: Path, cells: list[Any], kind: Any) -> str:
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(encoded(colour))
    features = Features({"image": kind, "text": Value("string"), "label": Value("string")})
    rows = {"image": cells, "text": ["t"] * len(cells), "label": ["x"] * len(cells)}
    Dataset.from_dict(rows, features=features).save_to_disk(folder / "set")
    return str(folder / "set")


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([{"bytes": encoded(c), "path": None} for c in COLOURS], ImageFeature()),
        ([encoded(c) for c in COLOURS], Value("binary")),
        ([encoded(c) for c in COLOURS], Value("large_binary")),
        (
            [{"bytes": encoded(c), "path": "no.png"} for c in COLOURS],
            {"bytes": Value("binary"), "path": Value("string")},
        ),
        ([[encoded(c), encoded("white")] for c in COLOURS], List(Value("binary"))),
        ([[{"bytes": encoded(c), "path": None}] for c in COLOURS], List(ImageFeature())),
        (["red.png", "", "blue.png"], Value("string")),
        ([["red.png", "lime.png"], [], ["blue.png"]], List(Value("string"))),
    ],
)
def test_images_of_every_kind_of_column(tmp_path: Path, cells: list[Any], kind: Any) -> None:
    source = HuggingFace(saved(tmp_path, cells, kind), image_root=str(tmp_path))
    records = source.read("train")
    assert records is not None
    names = records["image"].to_pylist()
    reader = pickle.loads(pickle.dumps(source.images))
    assert reader.missing(names) == []
    for name, cell, colour in zip(names, cells, COLOURS, strict=True):
        if not cell:
            assert name is None
            continue
        assert reader.content(name) == encoded(colour)
        assert reader.read(name).getpixel((0, 0)) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))


def test_the_first_of_several_columns(tmp_path: Path) -> None:
    features = Features({"front": Value("binary"), "back": ImageFeature(), "label": Value("string")})
    back = [{"bytes": encoded(colour), "path": None} for colour in COLOURS]
    rows = {"front": [encoded("white"), None, None], "back": [*back[:2], None], "label": ["x"] * 3}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    source = HuggingFace(str(tmp_path / "set"), image_column=["front", "back"], text_column=None)
    records = source.read("train")
    assert records is not None
    white, lime, none = records["image"].to_pylist()
    assert source.images.read(white).getpixel((0, 0)) == (255, 255, 255)
    assert source.images.read(lime).getpixel((0, 0)) == (0, 255, 0)
    assert none is None


def test_what_is_no_image_is_said(tmp_path: Path) -> None:
    source = HuggingFace(saved(tmp_path, ["../red.png", "/etc/a.png"], Value("string")))
    with pytest.raises(RobustTuneError, match="of 2 rows, 2 name an image outside of the folder of images"):
        source.read("train")
    source = HuggingFace(saved(tmp_path, [1, 2], Value("int32")))
    with pytest.raises(RobustTuneError, match="the column image of .* is of .*int32.*, not of images: give another"):
        source.read("train")


def test_broken_images_are_named(tmp_path: Path) -> None:
    source = HuggingFace(saved(tmp_path, [encoded("red")[:50], b"no"], Value("binary")))
    records = source.read("train")
    assert records is not None
    for name in records["image"].to_pylist():
        with pytest.raises(UnreadableImageError, match=f"^the image in {name} of {source.path} cannot be read"):
            source.images.read(name)
