"""Image transforms against Pillow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from robusttune.encoders import Augmentation, ImageTransform, Preprocessing

OWN = Preprocessing(size=20, crop=0.8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def photo(width: int = 60, height: int = 40) -> Image.Image:
    """Colours that run into each other, as in a photo; pure noise would be clipped on the way."""
    colours = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BILINEAR)


@given(
    st.tuples(st.integers(20, 400), st.integers(20, 400)),
    st.integers(1, 100),
    st.floats(0.5, 1),
    st.sampled_from(["bicubic", "bilinear"]),
    st.booleans(),
)
def test_clean_view_is_resize_and_centre_crop(
    sides: tuple[int, int], size: int, crop: float, interpolation: str, squash: bool
) -> None:
    own = replace(OWN, size=size, crop=crop, interpolation=interpolation, crop_mode="squash" if squash else "center")
    resized = round(size / crop)
    resize = v2.Resize([resized, resized] if squash else [resized], InterpolationMode(interpolation))
    expected = v2.PILToTensor()(v2.CenterCrop(size)(resize(photo(*sides))))
    actual = ImageTransform(own)(photo(*sides), seed=0)
    assert actual.dtype == torch.uint8
    difference = (actual.int() - expected.int()).abs()
    assert difference.max() <= 2
    assert difference.float().mean() <= 0.3  # ties that are rounded the other way


def test_squash_gives_up_the_aspect_ratio() -> None:
    squash = Preprocessing(size=20, crop=1.0, mean=OWN.mean, std=OWN.std, crop_mode="squash")
    expected = np.asarray(photo().resize((20, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(ImageTransform(squash)(photo(), seed=0).permute(1, 2, 0).numpy(), expected)


def test_a_line_of_pixels_is_not_blown_up_before_it_is_cropped() -> None:
    """To 20 x 20,000,000 pixels, gigabytes."""
    assert ImageTransform(OWN)(photo(1_000_000, 1), seed=0).shape == (3, 20, 20)


def test_random_views_depend_on_the_seed_alone_and_leave_the_global_state() -> None:
    view = ImageTransform(OWN, Augmentation())
    state = torch.get_rng_state()
    first = view(photo(), seed=1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    assert torch.equal(first, view(photo(), seed=1))
    assert not torch.equal(first, view(photo(), seed=2))
    assert first.shape == (3, 20, 20)
