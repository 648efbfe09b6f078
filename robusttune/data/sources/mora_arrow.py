"""MM-IMDb, Hateful Memes and UPMC Food-101 as the published code of MoRA reads them: one Arrow file for each split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from robusttune.data.images import ImageReader
from robusttune.data.problems import Problems
from robusttune.data.sources.arrow_file import ipc_schema, read_ipc
from robusttune.data.sources.base import Record, Source, none_if_blank, require_paths, to_table
from robusttune.data.sources.hateful_memes import LABELS
from robusttune.data.sources.image_cells import image_parts
from robusttune.data.sources.rows import Row, TableOptions
from robusttune.data.stored_images import StoredImages
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

GENRES = (  # in the published order of the labels
    *("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror", "Documentary", "Mystery"),
    *("Sci-Fi", "Fantasy", "Family", "Biography", "War", "History", "Music", "Animation", "Musical", "Western"),
    *("Sport", "Short", "Film-Noir"),
)
NEEDED = ({"image", "plots", "label"}, {"image", "text", "label", "image_id"}, {"image", "text", "label"})


@dataclass(frozen=True)
class MoRAArrow(Source):
    """A folder with ``train.arrow``, ``val.arrow`` and ``test.arrow``, as the published code of MoRA reads them.

    The columns say which data set it is: MM-IMDb has ``plots``, UPMC Food-101 has ``image_id`` and ``text``, Hateful
    Memes has ``text`` alone. Classes are in the order of the published labels. As in the published code, each plot of
    a film is a sample of its own, and a row without a text is none. Published tables of missing modalities, which have
    an entry for each row, apply to all samples of a row: give them to ``data.missing``.

    Args:
        root: Folder of the three files.
    """

    root: str

    def __post_init__(self) -> None:
        files = [self._file(split) for split in ("train", "val", "test")]
        require_paths(*files, hint="set data.source.root to the folder with train.arrow, val.arrow and test.arrow")
        if not any(needed <= self._columns for needed in NEEDED):
            raise RobustTuneError(
                f"{files[0]} has the columns {', '.join(sorted(self._columns))}: give a file of MoRA's code, "
                "with image, label, and text or plots"
            )

    @property
    def multilabel(self) -> bool:  # type: ignore[override]
        """Return whether the data set is MM-IMDb, whose films may have several genres."""
        return "plots" in self._columns

    @property
    def images(self) -> ImageReader:
        """Return a reader of the images in the files."""
        return StoredImages()

    def class_names(self, table: pa.Table) -> list[str]:
        """Return the classes in the order of the published labels, also those that no row of the table has.

        Raises:
            RobustTuneError: The labels of UPMC Food-101 do not number its classes from 0.
        """
        if self.multilabel:
            return list(GENRES)
        if "image_id" not in self._columns:
            return list(LABELS)
        rows = self._rows("train", {"label", "image_id"})
        pairs = sorted({(row.cells["label"], _dish(row.cells["image_id"])) for row in rows})
        if [number for number, _ in pairs] != [*range(len(pairs))] or len({name for _, name in pairs}) < len(pairs):
            raise RobustTuneError(f"{self._file('train')} has labels that do not number its classes: write it again")
        return [name for _, name in pairs]

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of a split, or None for ``predict``.

        Raises:
            RobustTuneError: The file cannot be read, or has rows that do not fit the data set.
        """
        if split == "predict":
            return None
        path, texts = self._file(split), "plots" if self.multilabel else "text"
        bad, records, total = Problems(path, "rows"), [], 0
        for total, row in enumerate(self._rows(split, {"image", texts, "label", "genres", "image_id"}), start=1):
            parts = [*image_parts(row.cells["image"])]
            image = parts[0].name(f"{row.where} of {path.absolute()}") if parts else None  # type: ignore[union-attr]
            labels = self._labels(row, bad)
            for number, text in enumerate(row.cells[texts] or []):
                records.append(Record(f"{total}.{number}", image, none_if_blank(text), labels))
        bad.refuse(total)
        return to_table(records)

    def mask_rows(self, split: Split, ids: Sequence[str]) -> tuple[list[int], int]:
        """Return the row of each sample, and the number of all rows, see `Source.mask_rows`."""
        return [int(sample_id.partition(".")[0]) - 1 for sample_id in ids], sum(1 for _ in self._rows(split, {"label"}))

    @cached_property
    def _columns(self) -> set[str]:
        return {*ipc_schema(self._file("train")).names}

    def _file(self, split: str) -> Path:
        return user_path(self.root) / f"{split}.arrow"

    def _rows(self, split: str, columns: set[str]) -> Iterable[Row]:
        path = self._file(split)
        found = read_ipc(path, Problems(path, "rows"), columns, TableOptions())
        yield from found.rows

    def _labels(self, row: Row, bad: Problems) -> list[str]:
        """Return the class names of a row, and add the row to ``bad`` if its label does not fit."""
        label: Any = row.cells["label"]
        if self.multilabel:
            if not isinstance(label, list) or len(label) != len(GENRES) or not {*label} <= {0, 1}:
                bad.add(row.where, f"have a label that is no list of {len(GENRES)} numbers 0 or 1")
                return []
            names = [name for name, given in zip(GENRES, label, strict=True) if given]
            if "genres" in row.cells and {*(row.cells["genres"] or [])} & {*GENRES} != {*names}:
                bad.add(row.where, "have other genres than their label")
            return names
        if "image_id" in self._columns:
            return [_dish(row.cells["image_id"])]
        if label not in (0, 1):
            bad.add(f"{row.where}, {label!r:.40}", "have another label than 0 and 1")
        return [LABELS[label == 1]]


def _dish(file_name: object) -> str:
    """Return the class of a picture of UPMC Food-101: its file name up to the last underscore.

    Example:
        >>> _dish("apple_pie_12.jpg")
        'apple_pie'
    """
    return str(file_name).rpartition("_")[0]
