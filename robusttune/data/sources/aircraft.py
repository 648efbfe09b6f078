"""FGVC Aircraft: which of 100 variants a photo shows (arXiv 1306.5151)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Published, Record, Source, require, to_table
from robusttune.data.sources.files import read_text, within
from robusttune.paths import user_path
from robusttune.types import Split


@dataclass(frozen=True)
class FGVCAircraft(Source):
    """FGVC Aircraft as it is distributed: ``images_variant_{train,val,test}.txt``, ``variants.txt``, ``images/``.

    Classes are in the order of ``variants.txt``.

    Args:
        root: the folder that holds them, ``data`` in the archive.
    """

    root: str
    published = Published({"train": 3_334, "val": 3_333, "test": 3_333}, classes=100)

    def __post_init__(self) -> None:
        files = (self._folder / f"images_variant_{split}.txt" for split in ("train", "val", "test"))
        hint = "set data.source.root to the folder of FGVC Aircraft that holds images/ and variants.txt"
        require(self._folder / "variants.txt", self._folder / "images", *files, hint=hint)

    @property
    def _folder(self) -> Path:
        return user_path(self.root)

    def read(self, split: Split) -> pa.Table | None:
        if split == "predict":
            return None
        path, variants = self._folder / f"images_variant_{split}.txt", {*self._variants()}
        bad = Problems(path, "rows")
        records = []
        for number, line in enumerate(read_text(path).splitlines(), 1):
            photo, _, variant = line.strip().partition(" ")  # variants hold spaces and slashes
            image = within(self._folder / "images", f"{photo}.jpg")
            if variant not in variants:
                bad.add(f"line {number}, {line!r:.60}", "name no variant of variants.txt")
            if image is None:
                bad.add(f"line {number}, {photo!r:.60}", f"name a file that is not within {self._folder / 'images'}")
            records.append(Record(photo, image, None, [variant]))
        bad.add_repeats((record.id, f"line {number}") for number, record in enumerate(records, 1))
        bad.refuse(len(records))
        return to_table(records)

    def class_names(self, table: pa.Table) -> list[str]:
        return self._variants()

    def _variants(self) -> list[str]:
        return [line.strip() for line in read_text(self._folder / "variants.txt").splitlines() if line.strip()]
