"""Image transforms against Pillow."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from robusttune.encoders import Augmentation, ImageTransform, Preprocessing

OWN = Preprocessing(size=20, crop=0.8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def test_clean_view_is_resize_of_the_short_side_and_centre_crop() -> None:
    resized = photo().resize((37, 25), Image.Resampling.BICUBIC)  # 20 / 0.8 = 25 on the short side
    expected = np.asarray(resized)[2:22, 8:28]
    actual = ImageTransform(OWN)(photo(), seed=0)
    assert actual.dtype == torch.uint8
    assert np.array_equal(actual.permute(1, 2, 0).numpy(), expected)


def test_squash_gives_up_the_aspect_ratio() -> None:
    squash = Preprocessing(size=20, crop=1.0, mean=OWN.mean, std=OWN.std, crop_mode="squash")
    expected = np.asarray(photo().resize((20, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(ImageTransform(squash)(photo(), seed=0).permute(1, 2, 0).numpy(), expected)


def test_random_views_depend_on_the_seed_alone_and_leave_the_global_state() -> None:
    view = ImageTransform(OWN, Augmentation())
    state = torch.get_rng_state()
    first = view(photo(), seed=1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    assert torch.equal(first, view(photo(), seed=1))
    assert not torch.equal(first, view(photo(), seed=2))
    assert first.shape == (3, 20, 20)
