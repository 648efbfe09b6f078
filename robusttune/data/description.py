"""What a run records about its data: settings and counts of a split, and files with masks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robusttune.corruption.masks import Mask
from robusttune.corruption.noise import SplitNoise
from robusttune.counting import counted
from robusttune.data.mask_files import write_mask
from robusttune.data.records import presence
from robusttune.data.rows import Rows
from robusttune.types import Split

if TYPE_CHECKING:
    from robusttune.data.datamodule import ImageTextDataModule


def summary_line(split: Split, rows: Rows, mask: Mask | None) -> str:
    """Return a log line with the number of samples, of images and of texts.

    Args:
        split: Name of the split.
        rows: Rows of the split.
        mask: Mask of the split, or None.
    """
    counts = presence(rows)
    line = f"{split}: {counted(len(rows), 'sample')}, {counts['complete'] + counts['image_only']} with image, "
    line += f"{counts['complete'] + counts['text_only']} with text"
    line += f", {counts['neither']} with neither" if counts["neither"] else ""
    return f"{line} (mask {mask.hash})" if mask else line


def describe_split(data: ImageTextDataModule, split: Split) -> dict[str, Any]:
    """Return the settings and counts of a split (selection, noise, mask, samples) as plain data, for a report.

    Args:
        data: Data module.
        split: Split to describe.
    """
    rows, protocol = data.rows(split), getattr(data.missing, split)
    return {
        "splits": asdict(data.splits),
        "classes": data.evaluation.classes,
        "seed": data.seed,
        "noise": asdict(getattr(data.noise, split)),
        "missing": None if protocol is None else asdict(protocol),
        "mask": data.masks[split].hash if split in data.masks else None,
        "samples": None if rows is None else presence(rows),
    }


def is_unchanged(data: ImageTextDataModule, split: Split) -> bool:
    """Return whether a split has neither a missing-modality protocol nor noise.

    Args:
        data: Data module.
        split: Split to check.
    """
    return getattr(data.missing, split) is None and getattr(data.noise, split) == SplitNoise()


def write_masks(data: ImageTextDataModule, folder: Path) -> None:
    """Write ``<split>.parquet`` for each mask, see `write_mask`.

    Args:
        data: Data module.
        folder: Folder of the files. It is created if it does not exist.
    """
    for split in data.masks:
        write_split_mask(data, split, folder / f"{split}.parquet")


def write_split_mask(data: ImageTextDataModule, split: Split, path: Path) -> None:
    """Write the mask of a split to a Parquet file, with its protocol and the counts of present modalities.

    Args:
        data: Data module.
        split: Split that has a mask.
        path: Path of the file.

    Raises:
        KeyError: The split has no mask.
    """
    about = {"split": split, "protocol": json.dumps(asdict(getattr(data.missing, split)))}
    rows = data.rows(split)
    counts = {} if rows is None else {name: str(count) for name, count in presence(rows).items()}
    write_mask(path, data.masks[split], about | counts)
