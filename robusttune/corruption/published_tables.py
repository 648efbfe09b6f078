"""The tables of missing modalities that published code of missing-aware methods, such as MoRA's, draws and stores."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

COMPLETE, NO_TEXT, NO_IMAGE = range(3)  # the published codes


def draw_tables(
    rows: Mapping[str, int], type: Literal["image", "text", "both"], rate: float, seed: int = 42
) -> dict[str, NDArray[np.uint8]]:
    """Draw the tables of all splits, one after the other, as MoRA's published code does if there are no files.

    With type ``both``, half of the incomplete rows lack their image and the others their text. A table that is saved
    with `numpy.save` can be given to ``data.missing`` with ``codes: {0: complete, 1: no_text, 2: no_image}``.

    Args:
        rows: Number of rows of each split, in the order of the draws; the published one is train, val, test.
        type: Modality that is missing.
        rate: Share of the rows that lack a modality, in [0, 1]. With 0 nothing is drawn.
        seed: Seed of Python's random numbers before the first split.

    Returns:
        Codes of each split: 0 complete, 1 without text, 2 without image.

    Example:
        >>> draw_tables({"train": 20}, "both", 0.7)["train"]
        array([2, 1, 1, 2, 0, 0, 2, 2, 1, 0, 2, 1, 1, 0, 0, 1, 1, 2, 2, 0],
              dtype=uint8)
    """
    numbers, tables = random.Random(seed), {}
    for split, count in rows.items():
        table = np.full(count, COMPLETE, dtype=np.uint8)
        if rate > 0:
            lost = numbers.sample(range(count), int(count * rate))
            table[lost] = NO_IMAGE if type == "image" else NO_TEXT
            if type == "both":
                table[numbers.sample(lost, int(len(lost) * 0.5))] = NO_IMAGE
        tables[split] = table
    return tables
