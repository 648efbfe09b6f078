"""Image noise: how much each severity damages, at any size, and that each kind does what its name says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robusttune.corruption.noise import IMAGE_NOISE, SEVERITIES, ImageNoiseKind, corrupt_image

LAYERS = ((3, 0.6), (9, 0.4), (20, 0.3), (40, 0.25), (80, 0.2), (160, 0.15))  # patches a side, and their contrast
RANDOM = ("gaussian", "shot", "brightness", "occlusion")
every_kind = pytest.mark.parametrize("kind", IMAGE_NOISE)


@cache
def picture(side: int, seed: int) -> Tensor:
    """(3, side, side) with detail of every size, as photos have; the same picture at any side."""
    rng, pixels = np.random.default_rng(seed), np.full((side, side, 3), 128.0)
    for count, contrast in LAYERS:
        patches = Image.fromarray(rng.integers(0, 256, (count, count, 3), dtype=np.uint8))
        pixels += (np.asarray(patches.resize((side, side), Image.Resampling.BICUBIC)) - 128.0) * contrast
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()


def flat(level: int, side: int = 64) -> Tensor:
    return torch.full((3, side, side), level, dtype=torch.uint8)


def corrupted(image: Tensor, kind: ImageNoiseKind, severity: int, seed: int = 0) -> Tensor:
    return corrupt_image(image, kind, severity, np.random.default_rng(seed))


def parameters(kind: ImageNoiseKind) -> Iterator[tuple[int, float]]:
    return zip(SEVERITIES, IMAGE_NOISE[kind][1], strict=True)


def damage(kind: ImageNoiseKind, severity: int, side: int, seeds: int = 8) -> float:
    """Mean squared error over several pictures and draws."""
    errors = []
    for seed in range(seeds):
        image = picture(side, seed)
        change = corrupted(image, kind, severity, seed).numpy() - image.numpy().astype(np.float32)
        errors.append(np.square(change).mean())
    return float(np.mean(errors))


def test_every_kind_is_there() -> None:
    assert tuple(IMAGE_NOISE) == get_args(ImageNoiseKind)


@pytest.mark.parametrize("side", [32, 64, 224])
@every_kind
def test_each_severity_damages_more(kind: ImageNoiseKind, side: int) -> None:
    damages = [damage(kind, severity, side) for severity in SEVERITIES]
    assert damages[0] > 0
    assert all(more > 1.1 * less for less, more in pairwise(damages))


@every_kind
def test_a_picture_loses_alike_at_any_size(kind: ImageNoiseKind) -> None:
    damages = [damage(kind, 5, side, seeds=3) for side in (32, 64, 224, 384)]
    assert max(damages) < 2.3 * min(damages)


@every_kind
def test_the_same_seed_gives_the_same(kind: ImageNoiseKind) -> None:
    image = picture(48, 0)
    before = image.clone()
    found = [corrupted(image, kind, 3, seed) for seed in (0, 0, *range(1, 8))]
    assert torch.equal(image, before)
    assert torch.equal(found[0], found[1])
    assert any(not torch.equal(found[0], other) for other in found[2:]) == (kind in RANDOM)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (1, 1000), (224, 224)])
@every_kind
def test_any_shape_comes_back_as_it_went_in(kind: ImageNoiseKind, shape: tuple[int, int]) -> None:
    upright = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    turned = upright.permute(2, 0, 1)
    for severity in SEVERITIES:
        found = corrupted(turned, kind, severity)
        assert (found.shape, found.dtype, found.is_contiguous()) == ((3, *shape), torch.uint8, True)
        assert torch.equal(found, corrupted(turned.contiguous(), kind, severity))
        found.fill_(7)
    assert torch.equal(
        upright, torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    )


def test_gaussian_has_its_deviation() -> None:
    for severity, deviation in list(parameters("gaussian"))[:3]:  # beyond, much is clipped
        noisy = corrupted(flat(128), "gaussian", severity).float()
        assert noisy.std() == pytest.approx(255 * deviation, rel=0.05)
        assert noisy.mean() == pytest.approx(128, abs=1)


def test_shot_varies_with_the_light() -> None:
    levels = (0, 30, 60, 90)
    stripes = torch.cat([flat(level) for level in levels], dim=2)
    for severity, photons in list(parameters("shot"))[:3]:
        noisy = corrupted(stripes, "shot", severity).numpy()
        for level, part in zip(levels, np.split(noisy, len(levels), axis=2), strict=True):
            assert part.mean() == pytest.approx(level, rel=0.05)
            assert part.var() == pytest.approx(level * 255 / photons, rel=0.15)


@pytest.mark.parametrize("side", [64, 224, 448])
def test_blur_spreads_an_edge_by_its_deviation(side: int) -> None:
    edge = flat(0, side)
    edge[:, :, side // 2 :] = 255
    for severity, deviation in parameters("blur"):
        slope = np.diff(corrupted(edge, "blur", severity)[0, side // 2].double().numpy())
        middle = np.arange(side - 1) - (side / 2 - 1)
        assert slope.sum() == 255
        assert np.sqrt((slope * middle**2).sum() / 255) == pytest.approx(deviation * side / 224, rel=0.1)


@pytest.mark.parametrize("side", [112, 224, 448])
def test_jpeg_makes_blocks_of_an_eighth_of_28(side: int) -> None:
    block = side // 28
    found = corrupted(picture(side, 0), "jpeg", 5).float()
    steps = (found[:, :, 1:] - found[:, :, :-1]).abs().mean(dim=(0, 1))
    at_edges = steps[block - 1 :: block]
    assert len(at_edges) == 27
    assert at_edges.mean() > 1.5 * steps.mean()


def test_brightness_shifts_all_pixels_up_or_down() -> None:
    for severity, share in list(parameters("brightness"))[:4]:
        levels = {tuple(np.unique(corrupted(flat(128), "brightness", severity, seed))) for seed in range(20)}
        assert levels == {(128 + round(255 * share),), (128 - round(255 * share),)}


@pytest.mark.parametrize("side", [32, 128])
def test_occlusion_covers_its_area_with_a_grey_rectangle(side: int) -> None:
    for severity, area in parameters("occlusion"):
        tops, lefts, aspects = set(), set(), []
        for seed in range(30):
            found = corrupted(flat(255, side), "occlusion", severity, seed).numpy()
            covered = (found == 128).all(axis=0)
            rows, columns = covered.any(axis=1), covered.any(axis=0)
            assert np.array_equal(covered, rows[:, None] & columns)
            assert (found[:, ~covered] == 255).all()
            assert covered.mean() == pytest.approx(area, rel=0.05 if side == 128 else 0.2)
            tops.add(rows.argmax())
            lefts.add(columns.argmax())
            aspects.append(rows.sum() / columns.sum())
        assert min(len(tops), len(lefts)) > 5
        assert min(aspects) < 0.7
        assert max(aspects) > 1.4


def test_low_resolution_leaves_no_fine_detail() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 224, 224), dtype=np.uint8))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(224), np.fft.fftfreq(224)))
    for severity, block in parameters("low_resolution"):
        found = corrupted(image, "low_resolution", severity)
        before, after = (np.abs(np.fft.fft2(each.double().numpy())) ** 2 for each in (image, found))
        fine, coarse = frequency > 1.5 * 0.5 / block, (frequency < 0.5 * 0.5 / block) & (frequency > 0)
        assert after[:, fine].sum() < 0.02 * before[:, fine].sum()
        assert after[:, coarse].sum() > 0.6 * before[:, coarse].sum()


@pytest.mark.parametrize("kind", ["blur", "jpeg", "low_resolution"])
def test_what_is_flat_has_no_detail_to_lose(kind: ImageNoiseKind) -> None:
    assert (corrupted(flat(128), kind, 5).float() - 128).abs().max() <= 1
