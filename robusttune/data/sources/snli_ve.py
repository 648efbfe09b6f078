"""SNLI-VE: visual entailment of a sentence by a photo of Flickr30k (arXiv 1901.06706)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Published, Record, Source, require_paths, to_table
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.files import path_kind, within
from robusttune.data.sources.readers import as_text, cell_text, read_rows
from robusttune.data.sources.rows import Row
from robusttune.paths import user_path
from robusttune.types import Split

LABELS = ("entailment", "neutral", "contradiction")
IMAGE_KEYS = ("Flickr30K_ID", "Flickr30kID", "Flikr30kID")  # the three spellings in circulation
FOLDERS = ("images", "flickr30k_images")


@dataclass(frozen=True)
class SNLIVE(Source):
    """The SNLI-VE data set in its original file layout.

    The files are ``snli_ve_{train,dev,test}.jsonl``, and the photos are in a folder next to them. The classes are
    entailment, neutral and contradiction.

    Source: Xie et al., Visual Entailment: A Novel Task for Fine-Grained Image Understanding (arXiv 1901.06706).

    Args:
        root: Folder that holds the three files, and the photos in ``images`` or ``flickr30k_images``.
        image_root: Folder of the photos, if it is another one.
    """

    root: str
    image_root: str | None = None
    published = Published(
        {"train": 529_527, "val": 17_858, "test": 17_901},
        classes=3,
        by_class={  # table 1 of the paper
            "train": dict(zip(LABELS, (176_932, 176_045, 176_550), strict=True)),
            "val": dict(zip(LABELS, (5_959, 5_960, 5_939), strict=True)),
            "test": dict(zip(LABELS, (5_973, 5_964, 5_964), strict=True)),
        },
    )

    def __post_init__(self) -> None:
        hint = "set data.source.root to the folder of SNLI-VE that holds snli_ve_{train,dev,test}.jsonl"
        require_paths(*(self._file(split) for split in ("train", "dev", "test")), hint=hint)
        require_paths(folders=[self.photos], hint="set data.source.image_root to the folder of the photos")

    @property
    def photos(self) -> Path:
        """Return the path of the folder of photos."""
        if self.image_root is not None:
            return user_path(self.image_root)
        candidates = [user_path(self.root) / name for name in FOLDERS]
        return next((folder for folder in candidates if path_kind(folder) == "folder"), candidates[0])

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of ``train``, ``val`` or ``test``, or None for ``predict``.

        Ids are line numbers, since the same photo and sentence may occur in several lines.

        Raises:
            RobustTuneError: If the file cannot be read, or has rows that cannot be parsed.
        """
        if split == "predict":
            return None
        path = self._file({"val": "dev"}.get(split, split))
        bad = Problems(path, "rows")
        rows = list(read_rows(path, bad, ("sentence2", "gold_label", *IMAGE_KEYS)).rows)
        total, blanks = len(rows) + len(bad), Blanks([])
        records = [self._record(row, bad, blanks) for row in rows]
        bad.refuse(total)
        return to_table(records)

    def class_names(self, table: pa.Table) -> list[str]:
        """Return the three classes in a fixed order: entailment, neutral, contradiction."""
        return list(LABELS)

    def _file(self, split: str) -> Path:
        return user_path(self.root) / f"snli_ve_{split}.jsonl"

    def _record(self, row: Row, bad: Problems, blanks: Blanks) -> Record:
        number = row.where.removeprefix("line ")
        names = [as_text(row.cells.get(key)) for key in IMAGE_KEYS]
        name = next((name.removesuffix(".jpg") for name in names if name), None)
        image = within(self.photos, f"{name}.jpg") if name else None
        if image is None:
            bad.add(f"{row.where}, {name!r}", f"name no photo ({', '.join(IMAGE_KEYS)}) of the folder {self.photos}")
        label = row.cells.get("gold_label")
        if label not in LABELS:
            bad.add(f"{row.where}, {label!r:.40}", f"have another gold_label than {', '.join(LABELS)}")
        return Record(number, image, cell_text(row, "sentence2", bad, blanks, needed=True), [str(label)])
