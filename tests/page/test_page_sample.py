"""The sample that a visitor of the page gives: limits, hostile files, and noise as a test adds it."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from robusttune.corruption.noise import IMAGE_NOISE, TEXT_NOISE, corrupt_image
from robusttune.data.images import UnreadableImageError
from robusttune.encoders.preprocessing import ImageTransform, Preprocessing
from robusttune.errors import RobustTuneError
from robusttune.page.sample import NOISE_SEED, TEXT_CHARACTERS, Change, noisy_image, read_sample, read_upload

HALF = (0.5, 0.5, 0.5)
SQUARE = Preprocessing(size=32, crop=1.0, mean=HALF, std=HALF)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    content = BytesIO()
    image.save(content, kind)
    return content.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG file that claims a size, with hardly any content."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_image_and_text_are_read() -> None:
    sample = read_sample(encoded(PHOTO), "a.png", {"text": " a red circle\r\n"}, SQUARE, None)
    assert sample.image is not None
    assert np.array_equal(np.asarray(sample.image), np.asarray(PHOTO))
    assert (sample.text, sample.removed) == ("a red circle", frozenset())


def test_neither_is_needed() -> None:
    assert read_sample(None, "", {"text": "  "}, SQUARE, None) == read_sample(None, "", {}, SQUARE, None)


def test_a_removed_modality_keeps_its_content() -> None:
    sample = read_sample(None, "", {"text": "a", "text_mode": "remove"}, SQUARE, None)
    assert (sample.text, sample.removed) == ("a", frozenset(["text"]))


HOSTILE = {
    "truncated JPEG": (encoded(PHOTO, "JPEG")[:500], "cannot be read as an image"),
    "truncated PNG": (encoded(PHOTO)[:500], "cannot be read as an image"),
    "bomb": (png_of_size(60_000, 60_000), "as a decompression bomb has"),
    "large": (png_of_size(8_000, 8_000), "8000 x 8000 pixels, more than the 40 million"),
    "a row of pixels": (png_of_size(30_000, 1), "too long and narrow"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "its format is SVG"),
    "HTML": (b"<!doctype html><script>alert(1)</script>", "its format is not known"),
    "zeros": (bytes(1000), "its format is not known"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "its format is EPS"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_a_sentence(name: str) -> None:
    content, words = HOSTILE[name]
    with pytest.raises((RobustTuneError, UnreadableImageError), match=r"^photo\.png ") as found:
        read_upload(content, "photo.png")
    assert words in str(found.value)


def test_long_texts_are_refused() -> None:
    with pytest.raises(RobustTuneError, match=r"the text has 10,001 characters, more than the 10,000"):
        read_sample(None, "", {"text": "a" * (TEXT_CHARACTERS + 1)}, SQUARE, None)


@pytest.mark.parametrize(
    "form",
    [
        {"image_mode": "explode"},
        {"image_mode": "noise", "image_kind": "typos", "image_severity": "3"},
        {"text_mode": "noise", "text_kind": "typos", "text_severity": "9" * 5000},
        {"text_mode": "noise"},
    ],
    ids=["mode", "kind", "severity", "neither"],
)
def test_unknown_choices_are_refused(form: dict[str, str]) -> None:
    with pytest.raises(RobustTuneError, match=r"_(mode|kind|severity) is '.{0,60}: give "):
        read_sample(None, "", form, SQUARE, None)


@pytest.mark.parametrize("kind", IMAGE_NOISE)
def test_noise_on_an_image_is_that_of_a_test(kind: str) -> None:
    """What the encoder gets is what `corrupt_image` makes of the preprocessed image."""
    square = PHOTO.crop((0, 0, 60, 60))
    transform = ImageTransform(SQUARE)
    expected = corrupt_image(transform(square, 0), kind, 4, np.random.default_rng(NOISE_SEED))  # type: ignore[arg-type]
    found = transform(noisy_image(square, Change("noise", kind, 4), SQUARE), 0)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_the_encoder_does_not_resize_a_noisy_image_again(mode: str) -> None:
    settings = Preprocessing(size=28, crop=0.875, mean=HALF, std=HALF, crop_mode=mode)  # type: ignore[arg-type]
    noisy = noisy_image(PHOTO, Change("noise", "gaussian", 3), settings)
    assert noisy.size == ((48, 32) if mode == "center" else (32, 32))
    found = ImageTransform(settings)(noisy, 0).permute(1, 2, 0).numpy()
    left = (noisy.width - 28) // 2
    assert np.array_equal(found, np.asarray(noisy)[2:30, left : left + 28])


@pytest.mark.parametrize("kind", TEXT_NOISE)
def test_noise_on_a_text(kind: str) -> None:
    form = {"text": "a small red circle on a white table", "text_mode": "noise", "text_kind": kind}
    found = [
        read_sample(None, "", form | {"text_severity": severity}, SQUARE, "three blue stars in the sky").text
        for severity in ("5", "5", "1")
    ]
    assert found[0] == found[1] != form["text"]
