"""Hateful Memes: classification of memes, pictures with text on them, as hateful or not (arXiv 2005.04790)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Published, Record, Source, require_paths, to_table
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.files import path_kind, within
from robusttune.data.sources.readers import as_text, cell_text, read_rows
from robusttune.data.sources.rows import Row
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

LABELS = ("not hateful", "hateful")
SAMPLES = {
    "train": 8_500,
    "dev": 500,  # dev and test are the files of the challenge's first phase
    "dev_seen": 500,
    "dev_unseen": 540,
    "test": 1_000,
    "test_seen": 1_000,
    "test_unseen": 2_000,
}


@dataclass(frozen=True)
class HatefulMemes(Source):
    """The Hateful Memes data set in its original file layout.

    The files are ``{train,dev_seen,...}.jsonl`` and ``img/<5 digits>.png``. Test files of the first release have no
    labels. Such a file is the ``predict`` split, and there is no test split.

    Source: Kiela et al., The Hateful Memes Challenge (arXiv 2005.04790).

    Args:
        root: Folder that holds the files and ``img``.
        val: Name of the validation file, or null to hold out a part of ``train``.
        test: Name of the test file, or null for none.
    """

    root: str
    val: Literal["dev_seen", "dev_unseen", "dev"] | None = "dev_seen"
    test: Literal["test_seen", "test_unseen", "test"] | None = "test_seen"

    def __post_init__(self) -> None:
        hint = "set data.source.root to the folder of Hateful Memes that holds img/ and train.jsonl"
        require_paths(self._folder / "train.jsonl", folders=[self._folder / "img"], hint=hint)
        for setting, name in (("val", self.val), ("test", self.test)):
            if name is not None and path_kind(self._folder / f"{name}.jsonl") == "nothing":
                has = ", ".join(other for other in SAMPLES if path_kind(self._folder / f"{other}.jsonl") == "file")
                raise RobustTuneError(
                    f"{self._folder} has no {name}.jsonl (it has {has}): set data.source.{setting} to one that is "
                    "there, or to null"
                )
        require_paths(*(self._file(name) for name in (self.val, self.test) if name is not None), hint=hint)

    @property
    def published(self) -> Published:
        """Return the published counts of the files in use."""
        files = {"train": "train", "val": self.val, "test": self.test}
        return Published({split: SAMPLES[name] for split, name in files.items() if name is not None}, classes=2)

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of a split, or None where there is no such split.

        Raises:
            RobustTuneError: If the file cannot be read, or has rows that cannot be parsed.
        """
        name = {"train": "train", "val": self.val}.get(split, self.test)
        if name is None:
            return None
        path = self._file(name)
        bad, blanks = Problems(path, "rows"), Blanks([])
        rows = list(read_rows(path, bad, ("id", "img", "text", "label")).rows)
        total = len(rows) + len(bad)
        is_unlabelled = all(row.cells.get("label", -1) == -1 for row in rows)
        unlabelled = split in ("test", "predict") and not bad and is_unlabelled
        if (split == "test" and unlabelled) or (split == "predict" and not unlabelled):
            return None
        records = [self._record(row, unlabelled, bad, blanks) for row in rows]
        bad.add_repeats((record.id, row.where) for record, row in zip(records, rows, strict=True))
        bad.refuse(total)
        return to_table(records)

    def class_names(self, table: pa.Table) -> list[str]:
        """Return the two classes in the order of their label numbers: not hateful, hateful."""
        return list(LABELS)

    @property
    def _folder(self) -> Path:
        return user_path(self.root)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.jsonl"

    def _record(self, row: Row, unlabelled: bool, bad: Problems, blanks: Blanks) -> Record:
        name, label = as_text(row.cells.get("img")), row.cells.get("label")
        image = within(self._folder, name) if name else None
        if image is None:
            bad.add(f"{row.where}, {name!r:.60}", f"name no img within {self._folder}")
        if not unlabelled and label not in (0, 1):
            bad.add(f"{row.where}, {label!r:.40}", "have another label than 0 and 1")
        number = row.cells.get("id")  # an int in some releases, a string with leading zeros in others
        if type(number) not in (int, str) or not (as_text(number) or "").strip():
            bad.add(f"{row.where}, {number!r:.40}", "have no id that is a number or a text", "give them ids")
        labels = None if unlabelled else [LABELS[label == 1]]
        return Record(str(number).zfill(5), image, cell_text(row, "text", bad, blanks, needed=True), labels)
