"""Images that would start a program, or never end: each is unreadable at once, and says why."""

from __future__ import annotations

import ast
import os
import socket
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from fakes import grouped, tiny_image_encoder, tiny_text_encoder, write_image, write_table
from PIL import EpsImagePlugin, Image

import robusttune
from robusttune.data import ImageTextDataModule
from robusttune.data.images import UnreadableImageError, image_endings, read_image
from robusttune.data.mask_files import read_mask
from robusttune.data.sources import HuggingFace, ImageFolder, Table
from robusttune.data.sources.files import read_json
from robusttune.data.verify import verify
from robusttune.errors import RobustTuneError

POSTSCRIPT = "its format is EPS, which is not read; convert it to JPEG or PNG"


@pytest.fixture(autouse=True)
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that the program for PostScript writes; the test fails if that is started."""
    written = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gs").write_text(f"#!/bin/sh\ntouch {written}\nexit 1\n")
    (tmp_path / "bin/gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for it once a process
    yield written
    assert not written.exists()


def postscript() -> bytes:
    file = BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "EPS")
    return file.getvalue()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # its name may have 107 bytes


# What a path leads to, and what is said of it.
IRREGULAR: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pipe": (pipe, "it is a pipe"),
    "endless": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "random": (lambda path: path.symlink_to("/dev/random"), "it is a device"),
    "socket": (listening, "No such device or address"),
    "folder": (Path.mkdir, "it is a folder"),
}


def with_one_of(folder: Path, spoil: Callable[[Path], Any]) -> Table:
    """Six samples with images, of which the last is spoiled."""
    rows = [{"image": f"{i}.png", "text": "soup", "label": "ab"[i % 2]} for i in range(6)]
    for i in range(5):
        write_image(folder / f"{i}.png")
    spoil(folder / "5.png")
    return Table(train=str(write_table(folder, "train", rows)))


def module(source: Any, text_folder: Path, **settings: Any) -> ImageTextDataModule:
    return ImageTextDataModule(
        source, tiny_image_encoder(), tiny_text_encoder(text_folder), **grouped(workers=0, **settings)
    )


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.eps", "a"])
def test_postscript_is_refused_whatever_its_file_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(postscript())
    with pytest.raises(UnreadableImageError, match=f"{name} cannot be read as an image \\({POSTSCRIPT}\\)"):
        read_image(tmp_path / name)
    with pytest.raises(UnreadableImageError, match=f"it cannot be read as an image \\({POSTSCRIPT}\\)"):
        read_image(BytesIO(postscript()), "it")


def test_postscript_in_a_hugging_face_data_set(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": postscript(), "path": "a.jpg"}], "label": ["x"]}
    features = Features({"image": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("string")})
    source = HuggingFace(str(tmp_path / "own"), text_column=None)
    source.__dict__["data"] = {"train": Dataset.from_dict(rows, features=features).cast_column("image", ImageFeature())}
    assert source.read("train") is not None
    source.images.digest("train/0")
    with pytest.raises(UnreadableImageError, match=POSTSCRIPT):
        source.images.read("train/0")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "its format is HEIC, which"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "its format is SVG, which"),
        (b"%PDF-1.7\n", "its format is PDF, which"),
        (b"\xd7\xcd\xc6\x9a\0\0" + bytes(40), "its format is WMF, which"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "its format is HDF5, which"),
        (b"\x89PNG\r\n\x1a\n cut", "its format is not known"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, head: bytes, said: str) -> None:
    (tmp_path / "a.jpg").write_bytes(head)
    with pytest.raises(UnreadableImageError, match=said):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "MPO"])
def test_formats_of_photos_are_read_whatever_their_files_are_called(tmp_path: Path, kind: str) -> None:
    frames = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]} if kind == "MPO" else {}
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.eps", kind, **frames)
    assert read_image(tmp_path / "a.eps").size == (8, 8)


def test_folders_of_images_have_the_same_formats(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.png", "c.tif", "d.eps", "e.ps", "f.pdf", "g.mpg", "h.h5", "i.wmf"):
        write_image(tmp_path / "x.png").rename(tmp_path / name)
        (tmp_path / "train/cat").mkdir(parents=True, exist_ok=True)
        (tmp_path / name).rename(tmp_path / "train/cat" / name)
    table = ImageFolder(train=str(tmp_path / "train")).read("train")
    assert table is not None
    assert table["id"].to_pylist() == ["cat/a.JPG", "cat/b.png", "cat/c.tif"]
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"} <= {*image_endings()}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["postscript", *IRREGULAR])
def test_verify_and_the_cache_go_on(
    tmp_path: Path, text_folder: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil, said = IRREGULAR.get(what, (lambda path: path.write_bytes(postscript()), POSTSCRIPT))
    source = with_one_of(tmp_path, spoil)
    found = verify(module(source, text_folder), None, threads=2, watch=lambda looks, total: looks)
    assert [line for line in found.problems if "images" in line] == [
        f"1 of 6 images unreadable, the first: {tmp_path}/5.png cannot be read as an image ({said})"
    ]
    data = module(source, text_folder, unreadable="absent", folder=str(tmp_path / "cache"), batch_size=4)
    data.setup("fit")
    data.fill_cache("fit", {"image_encoder": data.image_encoder.load(), "text_encoder": data.text_encoder.load()})
    unreadable = [line for batch in data.train_dataloader() for line in batch.unreadable]
    unreadable += [line for batch in data.val_dataloader() for line in batch.unreadable]
    assert unreadable == [f"{tmp_path}/5.png cannot be read as an image ({said})"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["pipe", "endless"])
def test_texts_and_masks_are_read_from_files(tmp_path: Path, what: str) -> None:
    IRREGULAR[what][0](tmp_path / "split.json")
    with pytest.raises(RobustTuneError, match=f"split.json cannot be read \\({IRREGULAR[what][1]}\\): check the file"):
        read_json(tmp_path / "split.json")
    IRREGULAR[what][0](tmp_path / "mask.pt")
    with pytest.raises(RobustTuneError, match="mask.pt is no .parquet, .pt, .npy file"):
        read_mask(tmp_path / "mask.pt", ["1"], {0: "complete"}, "train")


def test_every_image_is_opened_with_a_list_of_formats() -> None:
    calls = [
        (path.name, {keyword.arg for keyword in node.keywords})
        for path in Path(robusttune.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
    ]
    assert {name for name, _ in calls} == {"images.py", "image.py", "example.py"}
    assert all("formats" in given for _, given in calls)
