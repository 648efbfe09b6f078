"""Emoji in two drawing styles, by group, by subgroup and by keyword; also with a few samples of each class."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from experiments.emoji_data import IMAGES, NAMES, emoji_rows, plain
from experiments.small_tables.packages import Packages
from experiments.small_tables.rows import Row, SmallTable, frequent, sample

MOST_KEYWORDS = 40
NATURE = {"animal-mammal", "animal-bird", "animal-marine", "animal-bug", "animal-reptile", "animal-amphibian"}
PLANTS = {"plant-flower", "plant-other"}


def tables(packages: Packages) -> Iterator[SmallTable]:
    """Yield the tables of emoji."""
    names = packages(NAMES)
    noto = list(style_rows(names, packages, "noto"))
    fluent = list(style_rows(names, packages, "fluent3d"))
    in_noto, in_fluent = ((NAMES, IMAGES[style][0]) for style in ("noto", "fluent3d"))
    yield SmallTable("emoji_groups", "Noto emoji, short name, group", in_noto, _labelled(noto, "label"))
    for per_class in (5, 10):
        rows = _labelled(noto, "label")
        content = f"Noto emoji, short name, group; {per_class} training rows of each class"
        yield SmallTable(f"emoji_groups_{per_class}", content, in_noto, rows, per_class)
    rows = sample(_labelled(fluent, "label", keywords=True), 800)
    yield SmallTable("emoji_keywords_25", "3D emoji, keywords, group; 25 training rows", in_fluent, rows, 25)
    rows = frequent(_labelled(fluent, "subgroup"))
    yield SmallTable("emoji_subgroups", "3D emoji, short name, subgroup", in_fluent, rows)
    rows = sample(frequent(_labelled(noto, "keywords"), 15, MOST_KEYWORDS), 700)
    yield SmallTable("emoji_tags", "Noto emoji, short name, frequent keywords", in_noto, frequent(rows))
    two = [row for row in _labelled(fluent, "subgroup") if row.label in NATURE | PLANTS]
    rows = [row._replace(label="animal" if row.label in NATURE else "plant") for row in two]
    yield SmallTable("emoji_nature", "3D emoji, short name, animal or plant", in_fluent, rows)


def style_rows(names: Path, packages: Packages, style: str) -> Iterator[dict[str, Any]]:
    """Yield the emoji of a drawing style with the path of the image."""
    package, pattern = IMAGES[style]
    folder = (packages(package) / pattern).parent
    available = {plain(path.stem): path for path in sorted(folder.iterdir())}
    for row in emoji_rows(names):
        if plain(row["code"]) in available:
            yield {**row, "path": available[plain(row["code"])]}


def _labelled(emoji: list[dict[str, Any]], label: str, keywords: bool = False) -> list[Row]:
    """Return rows with one of the fields of the emoji as label."""
    return [
        Row(
            plain(one["code"]).lower(),
            partial(Path.read_bytes, one["path"]),
            ", ".join(one["keywords"]) if keywords else one["text"],
            sorted(one[label]) if label == "keywords" else one[label],
            one["path"].suffix,
        )
        for one in emoji
    ]
