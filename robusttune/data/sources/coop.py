"""The image data sets of CoOp (arXiv 2109.01134) that have a split file, such as Caltech101 and OxfordPets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import (
    Published,
    Record,
    Source,
    make_unique,
    names_of_classes,
    require_paths,
    to_table,
)
from robusttune.data.sources.files import is_unicode, read_json, within
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split


@dataclass(frozen=True)
class CoOp(Source):
    """An image data set with CoOp's split file ``split_zhou_<Name>.json``.

    The file has the lists ``train``, ``val`` and ``test`` of rows ``[path, label, class name]``. Classes are in the
    order of their label numbers. The split into base and new classes uses the same order.

    Source: Zhou et al., Learning to Prompt for Vision-Language Models (arXiv 2109.01134).

    Args:
        root: Folder that holds all data sets.
        split_file: Path of the split file, relative to ``root``.
        image_folder: Folder of the images, relative to ``root``; paths in the split file are relative to it.
        published: Published counts, which `verify` compares a copy with.
    """

    root: str
    split_file: str
    image_folder: str
    published: Published | None = None

    def __post_init__(self) -> None:
        hint = "fetch the split file that CoOp published, which numbers are compared on; none is made up in its place"
        require_paths(self.path, hint=hint)
        require_paths(folders=[self._images], hint="set data.source.root to the folder of all data sets")

    @property
    def path(self) -> Path:
        """Return the path of the split file."""
        return user_path(self.root) / self.split_file

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of ``train``, ``val`` or ``test``, or None for ``predict``.

        Raises:
            RobustTuneError: If the split file cannot be read, or has rows that cannot be parsed.
        """
        if split == "predict":
            return None
        bad = Problems(f"{self.path}, {split}", "rows")
        rows = self._rows[split]
        records = [self._record(number, row, bad) for number, row in enumerate(rows, 1)]
        bad.add_repeats((record.id, f"row {number}") for number, record in enumerate(records, 1))
        bad.refuse(len(rows))
        return to_table(records)

    def class_names(self, table: pa.Table) -> list[str]:
        """Return the names of the classes that occur in ``table``, in the order of their label numbers."""
        has = names_of_classes(table)
        return [name for _, name in sorted(self._names.items()) if name in has]

    @property
    def _images(self) -> Path:
        return user_path(self.root) / self.image_folder

    @cached_property
    def _rows(self) -> dict[str, list[Any]]:
        found = read_json(self.path)
        splits: dict[str, Any] = found if isinstance(found, dict) else {}
        if not all(isinstance(splits.get(name), list) for name in ("train", "val", "test")):
            raise RobustTuneError(f"{self.path} has not the lists train, val and test: fetch it again")
        return {name: splits[name] for name in ("train", "val", "test")}

    @cached_property
    def _names(self) -> dict[int, str]:
        """Return the class names by label number, with repeated names made unique.

        Raises:
            RobustTuneError: If a row cannot be parsed, or a label number has two names.
        """
        names: dict[int, str] = {}
        bad = Problems(self.path, "rows")
        for split, rows in self._rows.items():
            for number, row in enumerate(rows, 1):
                if not _is_row(row):
                    bad.add(f"{split} {number}, {row!r:.60}", "are no [path, label from 0, name]")
                elif names.setdefault(row[1], row[2]) != row[2]:
                    bad.add(f"{split} {number}, {row[2]!r} after {names[row[1]]!r}", "give a label another name")
        bad.refuse(sum(map(len, self._rows.values())))
        return make_unique(names)

    def _record(self, number: int, row: Any, bad: Problems) -> Record:
        names, (name, label, _) = self._names, row
        path = within(self._images, name)
        if path is None:
            bad.add(f"row {number}, {name!r:.80}", f"name a file that is not within {self._images}")
        return Record(name, path, None, [names[label]])


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == 3
        and all(isinstance(text, str) and text.strip() and is_unicode(text) for text in (row[0], row[2]))
        and type(row[1]) is int
        and row[1] >= 0
    )
