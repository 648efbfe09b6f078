"""Write a small table: images, one JSONL table for each split and part, and a description."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.emoji import write_rows
from experiments.small_tables.packages import pins
from experiments.small_tables.rows import Row, SmallTable
from experiments.small_tables.splits import SPLITS, split_rows

ALL, DESCRIPTION = "all.jsonl", "table.json"


def write_table(table: SmallTable, root: Path) -> dict[str, Any]:
    """Write a table into a folder of its name and return its description."""
    folder = root / table.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for row in table.rows:
        (folder / image_path(row)).write_bytes(row.image())
    write_rows(folder / ALL, as_json(table.rows))
    for split in SPLITS:
        train, test = split_rows(table, split)
        write_rows(folder / f"{split}-train.jsonl", as_json(train))
        write_rows(folder / f"{split}-test.jsonl", as_json(test))
    described = description(table)
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return described


def image_path(row: Row) -> Path:
    """Return the path of the image in the folder of the table."""
    return Path("images", f"{row.id}{row.suffix}")


def as_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return rows as they stand in the tables."""
    return [{"id": row.id, "image": str(image_path(row)), "text": row.text, "label": row.label} for row in rows]


def description(table: SmallTable) -> dict[str, Any]:
    """Return what is known of a table before anything is trained.

    Returns:
        Name, content, packages with version and license, encoders, kind of task, numbers of rows and classes, rows of
        the largest class divided by those of the smallest, mean number of labels, and fraction of rows without text.
    """
    train, test = split_rows(table, SPLITS[0])
    sizes = table.class_sizes()
    pinned = pins()
    return {
        "name": table.name,
        "content": table.content,
        "packages": {name: f"{pinned[name].version}, {pinned[name].license}" for name in table.packages},
        "encoders": table.encoders,
        "task": "multi-label" if table.multilabel else "multi-class",
        "rows": len(table.rows),
        "train_rows": len(train),
        "test_rows": len(test),
        "classes": len(sizes),
        "imbalance": round(max(sizes.values()) / min(sizes.values()), 1),
        "labels_per_row": round(mean(len(row.labels) for row in table.rows), 2),
        "without_text": round(mean(not row.text for row in table.rows), 3),
    }
