"""Scenes of the demo with weak factors: the picture or the caption hides most of what the class consists of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from experiments.small_tables.drawing import to_png
from experiments.small_tables.packages import Packages
from experiments.small_tables.rows import Row, SmallTable, frequent

from robusttune.data.sources.shapes import Shapes, Visibility, World

SIZES = {"scenes_weak": 300, "scenes_text": 600}
WORLDS = {
    "scenes_weak": World(classes=12, visibility=Visibility(0.4, 0.4, 0.2), hidden="distractor", label_noise=0.1),
    "scenes_text": World(visibility=Visibility(0.05, 0.65, 0.3)),
}
CONTENT = {
    "scenes_weak": "scene, caption, colour and shape; each shows little, hidden factors mislead, 10 % wrong labels",
    "scenes_text": "scene, caption, colour and shape; the caption shows far more",
}


def tables(packages: Packages) -> Iterator[SmallTable]:
    """Yield the tables of scenes, which need no package."""
    for name, world in WORLDS.items():
        shapes = Shapes(world=world, train=SIZES[name], seed=28)
        yield SmallTable(name, CONTENT[name], (), frequent(scene_rows(shapes)), encoders="demo_clip")


def scene_rows(shapes: Shapes) -> Iterator[Row]:
    """Yield the training samples of a generated data set."""
    table = shapes.read("train")
    assert table is not None
    records: list[dict[str, Any]] = table.to_pylist()
    for index, record in enumerate(records):
        yield Row(f"{index:04}", partial(_drawn, shapes, index), record["text"], record["labels"][0])


def _drawn(shapes: Shapes, index: int) -> bytes:
    return to_png(shapes.draw("train", index))
