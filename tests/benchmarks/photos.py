"""Made-up photos, as heavy to decode as real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, count: int) -> list[Path]:
    """JPEGs of 512 x 384 with some texture, about 60 kB each as photos of that size are."""
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
            (512, 384), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse) + rng.normal(0, 6, (384, 512, 1))
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths
