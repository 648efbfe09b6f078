"""What noise of severity 3 costs: milliseconds an image of 224 pixels, microseconds a text of 20 words.

`python tests/benchmarks/bench_noise.py`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.paired import FOLDER

from robusttune.corruption.noise import IMAGE_NOISE, TEXT_NOISE, corrupt_image, corrupt_text

ROUNDS = 100
Kind = TypeVar("Kind", bound=str)
TEXT = "a bowl of fresh green salad with grilled chicken and Parmesan on a wooden table for 8 people at noon"


def measure(name: str, unit: str, factor: float, kinds: Iterable[Kind], corrupt: Callable[[Kind], object]) -> None:
    """Time each kind, after once for warming up; print a table and write it to ``runs/benchmarks/<name>.json``."""
    found: dict[Kind, list[float]] = {}
    for kind in kinds:
        corrupt(kind)
        found[kind] = []
        for _ in range(ROUNDS):
            start = perf_counter()
            corrupt(kind)
            found[kind].append((perf_counter() - start) * factor)
    table = Table("", "median", "least", "greatest", title=f"{name} ({unit}), {ROUNDS} rounds", title_justify="left")
    for kind, values in found.items():
        table.add_row(kind, *(f"{value:.3g}" for value in (median(values), min(values), max(values))))
    Console().print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(
        json.dumps({f"{kind} ({unit})": v for kind, v in found.items()}, indent=2) + "\n"
    )


def main() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, 224, 224), dtype=np.uint8))
    measure("noise-image", "ms", 1e3, IMAGE_NOISE, lambda kind: corrupt_image(image, kind, 3, rng))
    measure("noise-text", "us", 1e6, TEXT_NOISE, lambda kind: corrupt_text(TEXT, kind, 3, rng, TEXT))


if __name__ == "__main__":
    main()
