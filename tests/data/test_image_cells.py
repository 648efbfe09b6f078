"""Image cells that hold no path: what they hold is said in a sentence that a person can read."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from fakes import write_table
from PIL import Image

from robusttune.data.sources import Table
from robusttune.errors import RobustTuneError


def encoded(kind: str) -> str:
    content = io.BytesIO()
    Image.effect_noise((40, 30), 50).convert("RGB").save(content, format=kind)
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("file:///photos/0.png", r"2 have a URL \(file://\) as image .*: write paths of files without file://"),
        ("https://example.org/0.png", r"2 have a URL \(https://\) as image .*: download the images"),
        ("s3://bucket/0.png", r"2 have a URL \(s3://\) as image .*: download the images"),
        (
            "data:image/png;base64,AAAA",
            r"2 hold the bytes of an image as text \(base64\) .*: save each image as a file",
        ),
        ("x" * 5000, "2 hold the bytes of an image as text"),
        *(
            (encoded(kind), "2 hold the bytes of an image as text")
            for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
        ),
    ],
)
@pytest.mark.parametrize("root", [True, False])
def test_what_is_no_path_is_reported(tmp_path: Path, cell: str, message: str, root: bool) -> None:
    rows = [{"image": image, "text": "t", "label": "x"} for image in ("a.png", cell, cell)]
    path = write_table(tmp_path, "train", rows)
    with pytest.raises(RobustTuneError, match=message) as caught:
        Table(train=str(path), image_root=str(tmp_path) if root else None).read("train")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "name", ["data/0.png", "photos/UklGR.webp", "a b/c:d.png", "C:/photos/0.png", "qk/" * 40 + "0.png"]
)
def test_paths_of_any_kind_are_paths(tmp_path: Path, name: str) -> None:
    path = write_table(tmp_path, "train", [{"image": name, "text": "t", "label": "x"}])
    table = Table(train=str(path)).read("train")
    assert table is not None
    assert table["image"].to_pylist() == [str(tmp_path / name)]
