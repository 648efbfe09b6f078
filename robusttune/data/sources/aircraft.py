"""FGVC Aircraft: photos of aircraft in 100 classes, the variants (arXiv 1306.5151)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Published, Record, Source, names_of_classes, require_paths, to_table
from robusttune.data.sources.files import read_lines, within
from robusttune.paths import user_path
from robusttune.types import Split


@dataclass(frozen=True)
class FGVCAircraft(Source):
    """The FGVC Aircraft data set in its original file layout.

    The files are ``images_variant_{train,val,test}.txt``, ``variants.txt`` and ``images/*.jpg``. Classes are in the
    order of ``variants.txt``.

    Source: Maji et al., Fine-Grained Visual Classification of Aircraft (arXiv 1306.5151).

    Args:
        root: Folder that holds these files, called ``data`` in the archive.
    """

    root: str
    published = Published({"train": 3_334, "val": 3_333, "test": 3_333}, classes=100)

    def __post_init__(self) -> None:
        files = (self._folder / f"images_variant_{split}.txt" for split in ("train", "val", "test"))
        hint = "set data.source.root to the folder of FGVC Aircraft that holds images/ and variants.txt"
        require_paths(self._folder / "variants.txt", *files, folders=[self._folder / "images"], hint=hint)

    @property
    def _folder(self) -> Path:
        return user_path(self.root)

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of ``train``, ``val`` or ``test``, or None for ``predict``.

        Raises:
            RobustTuneError: If a list of photos or ``variants.txt`` cannot be read or parsed.
        """
        if split == "predict":
            return None
        path, variants = self._folder / f"images_variant_{split}.txt", {*self._variants()}
        bad = Problems(path, "rows")
        records = []
        lines = read_lines(path)
        for number, line in lines:
            photo, _, variant = line.partition(" ")  # names of variants may contain spaces and slashes
            image = within(self._folder / "images", f"{photo}.jpg")
            if variant not in variants:
                bad.add(f"line {number}, {line!r:.60}", "name no variant of variants.txt")
            if image is None:
                bad.add(f"line {number}, {photo!r:.60}", f"name a file that is not within {self._folder / 'images'}")
            records.append(Record(photo, image, None, [variant]))
        bad.add_repeats((record.id, f"line {number}") for (number, _), record in zip(lines, records, strict=True))
        bad.refuse(len(lines))
        return to_table(records)

    def class_names(self, table: pa.Table) -> list[str]:
        """Return the variants that occur in ``table``, in the order of ``variants.txt``."""
        has = names_of_classes(table)
        return [variant for variant in self._variants() if variant in has]

    def _variants(self) -> list[str]:
        path = self._folder / "variants.txt"
        lines, bad = read_lines(path), Problems(path, "variants")
        bad.add_repeats(((line, f"line {number}") for number, line in lines), "a variant")
        bad.refuse(len(lines))
        return [line for _, line in lines]
