"""Image files of every kind that people have."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import write_bomb, write_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from robusttune.data.images import ImageFiles, UnreadableImageError, missing_files, read_image, unreadable_images

RED = (255, 0, 0)


def test_sixteen_bits_are_scaled_and_photos_turned_upright(tmp_path: Path) -> None:
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    deep = np.asarray(read_image(tmp_path / "deep.png"))
    assert np.abs(deep[..., 0].astype(float) - ramp / 257).max() <= 0.5
    sideways = Image.new("RGB", (40, 20), "blue")
    sideways.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    sideways.save(tmp_path / "sideways.png", exif=exif)
    upright = read_image(tmp_path / "sideways.png")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (255, 0, 0)


def test_transparent_images_are_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 255, 0])
    palette.save(tmp_path / "palette.png", transparency=0)
    for name in ("clear.png", "palette.png"):
        image = read_image(tmp_path / name)
        assert image.mode == "RGB"
        assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("CMYK", "print.jpg", {}),
        ("CMYK", "print.tif", {}),
        ("P", "palette.png", {}),
        ("P", "palette.gif", {}),
        ("RGBA", "alpha.webp", {"lossless": True}),
        ("RGB", "photo.bmp", {}),
        ("RGB", "progressive.jpg", {"progressive": True}),
    ],
)
def test_every_mode_comes_out_as_rgb(tmp_path: Path, mode: str, name: str, options: dict[str, Any]) -> None:
    Image.new("RGB", (40, 30), RED).convert(mode).save(tmp_path / name, **options)
    image = read_image(tmp_path / name)
    assert image.mode == "RGB"
    assert image.size == (40, 30)
    assert np.abs(np.asarray(image, dtype=int) - RED).max() <= 6


def test_shades_of_grey_stay_grey(tmp_path: Path) -> None:
    for mode in ("1", "L", "LA"):
        Image.new("L", (4, 4), 255).convert(mode).save(tmp_path / "white.png")
        assert read_image(tmp_path / "white.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], duration=50)
    assert np.abs(np.array(read_image(tmp_path / f"a.{ending}").getpixel((4, 4))) - RED).max() <= 6


def test_metadata_that_make_no_sense_do_not_matter(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert read_image(tmp_path / "a.jpg").size == (40, 30)


def spoiled(folder: Path) -> dict[str, str]:
    """Image files that cannot be read, and what is said of each."""
    whole = write_image(folder / "whole.jpg").read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "text.jpg").write_text("<html>404</html>")
    (folder / "folder.jpg").mkdir()
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(folder / "float.tif")
    write_bomb(folder / "bomb.png")
    return {
        "nowhere.jpg": "No such file",
        "empty.jpg": "it is empty",
        "truncated.jpg": "[Tt]runcated",
        "text.jpg": "its format is not known",
        "folder.jpg": "it is a folder",
        "float.tif": "32-bit numbers",
        "bomb.png": "as a decompression bomb has",
    }


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    reasons = spoiled(tmp_path)
    for name, reason in reasons.items():
        with pytest.raises(UnreadableImageError, match=f"{name} cannot be read as an image .*{reason}.*$"):
            read_image(tmp_path / name)
    paths = [str(tmp_path / name) for name in ("whole.jpg", *reasons)]
    assert [problem.split()[0] for problem in unreadable_images(paths, ImageFiles(), threads=3)] == paths[1:]


@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4))
def test_a_damaged_file_is_an_image_or_unreadable(
    tmp_path_factory: pytest.TempPathFactory, cut: float, flips: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for ending in ("jpg", "png", "gif", "webp", "tif"):
        path = folder / f"damaged.{ending}"
        data = bytearray(write_image(path).read_bytes())
        for where, by in flips:
            data[int(where * len(data))] ^= by
        path.write_bytes(data[: round(cut * len(data))])
        with suppress(UnreadableImageError):
            assert read_image(path).mode == "RGB"


def test_files_that_are_missing(tmp_path: Path) -> None:
    here = str(write_image(tmp_path / "a.png"))
    gone = [str(tmp_path / "b.png"), str(tmp_path / "no/a.png"), str(tmp_path / "n\0l/a.png"), f"{here}/a.png"]
    assert missing_files([gone[0], None, here, *gone[1:]]) == gone
