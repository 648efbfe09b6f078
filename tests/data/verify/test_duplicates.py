"""The same twice, exactly and nearly."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from hypothesis import given
from hypothesis import strategies as st
from layouts import picture
from PIL import Image, ImageEnhance

from robusttune.data.verify.duplicates import Shared, near, repeats, shared
from robusttune.data.verify.images import perceptual_hash


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=40), st.integers(0, 8), st.randoms())
def test_near_pairs_are_all_found_and_each_once(numbers: list[int], distance: int, rng: object) -> None:
    """Against all pairs, among them some that differ in few bits."""
    for number in numbers[:10]:
        flipped = number
        for _ in range(rng.randint(0, 18)):  # type: ignore[attr-defined]
            flipped ^= 1 << rng.randrange(64)  # type: ignore[attr-defined]
        numbers = [*numbers, flipped]
    numbers = [*dict.fromkeys(numbers)]
    found = [*near(np.array(numbers, dtype=np.uint64), distance)]
    assert len({*found}) == len(found)
    places = itertools.combinations(range(len(numbers)), 2)
    assert {*found} == {(i, j) for i, j in places if (numbers[i] ^ numbers[j]).bit_count() <= distance}


def test_repeats_count_what_is_there_already() -> None:
    assert repeats(["a", "b", "a", None, "a", None]) == 2
    assert repeats([]) == 0


def test_shared_by_each_two_splits() -> None:
    keys: dict[str, list[str | None]]
    keys = {"train": ["a", "b", None], "val": ["c", None], "test": ["b", "c", "b"]}
    ids = {"train": ["t1", "t2", "t3"], "val": ["v1", "v2"], "test": ["e1", "e2", "e3"]}
    assert shared(keys, ids) == [
        Shared("train", "test", [("t2", "e1"), ("t2", "e3")]),
        Shared("val", "test", [("v1", "e2")]),
    ]


def test_a_picture_looks_the_same_smaller_darker_and_saved_again(tmp_path: Path) -> None:
    hashes = []
    for number in range(6):
        picture(tmp_path / f"{number}.png", number)
        image = Image.open(tmp_path / f"{number}.png").convert("RGB").resize((200, 160), Image.Resampling.BICUBIC)
        image.save(tmp_path / "again.jpg", quality=60)
        changed = {
            "smaller": image.resize((100, 80)),
            "darker": ImageEnhance.Brightness(image).enhance(0.85),
            "saved again": Image.open(tmp_path / "again.jpg"),
        }
        hashes.append(perceptual_hash(image))
        for what, other in changed.items():
            assert (hashes[-1] ^ perceptual_hash(other)).bit_count() <= 10, what
    for first, second in itertools.combinations(hashes, 2):
        assert (first ^ second).bit_count() > 12


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_of_one_colour_has_a_hash(mode: str) -> None:
    assert perceptual_hash(Image.new(mode, (3, 2), 7)) == perceptual_hash(Image.new(mode, (30, 20), 99))


def test_the_hash_is_that_of_a_cosine_transform() -> None:
    """Computed another way, by SciPy."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    low = scipy.fft.dctn(pixels.astype(float))[:8, :8].ravel()
    bits = "".join(str(int(value > np.median(low[1:]))) for value in low)
    assert perceptual_hash(Image.fromarray(pixels)) == int(bits, 2)
