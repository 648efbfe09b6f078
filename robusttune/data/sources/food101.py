"""UPMC Food-101: photos of 101 dishes, each with the title of the web page it was found on."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Published, Record, Source, none_if_blank, require_paths, to_table
from robusttune.data.sources.files import class_folders, guard_against_changes, read_text
from robusttune.data.sources.food101_titles import TitleRow, clean_title, parse_titles
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Food101(Source):
    """The UPMC Food-101 data set in its original file layout.

    The files are ``images/{train,test}/<class>/<class>_<n>.jpg`` and ``texts/{train,test}_titles.csv`` (no header;
    columns: image name, title, class). There is no validation split. Rows that cannot be parsed, whose image does not
    exist, or whose image has already been used are left out, and a warning counts them.

    Source: Wang et al., Recipe recognition with large multimodal food dataset (ICME Workshops, 2015).

    Args:
        root: Folder that holds ``images`` and ``texts``.
    """

    root: str
    published = Published({"train": 67_970, "test": 22_716}, classes=101, approximate={"train": 0.01})

    def __post_init__(self) -> None:
        hint = "set data.source.root to the folder of UPMC Food-101 that holds images/ and texts/"
        require_paths(folders=(self.folder / "images" / split for split in ("train", "test")), hint=hint)
        require_paths(*(self.folder / "texts" / f"{split}_titles.csv" for split in ("train", "test")), hint=hint)

    @property
    def folder(self) -> Path:
        """Return the path of the data set's folder, with ``~`` expanded."""
        return user_path(self.root)

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of ``train`` or ``test``, or None for other splits.

        Raises:
            RobustTuneError: If the title file or an image folder cannot be read, or no row is usable.
        """
        if split not in ("train", "test"):
            return None
        titles, images = self.folder / "texts" / f"{split}_titles.csv", ImagesOnDisk(self.folder / "images" / split)
        rows = list(parse_titles(read_text(titles), images.names, images.labels))
        left_out = Problems(titles, "rows")
        records: dict[str, Record] = {}  # by image path
        for row in rows:
            path = images.find(row)
            if row.label is None:
                left_out.add(row.title, "cannot be understood")
            elif path is None:
                left_out.add(row.image, "name no image there is")
            elif path in records:
                left_out.add(row.image, "repeat an image")
            else:
                records[path] = Record(images.id_of(row), path, none_if_blank(clean_title(row.title)), [row.label])
        if left_out:
            log.warning("%s: they are left out", left_out.counts(len(rows)))
        if not records:
            raise RobustTuneError(f"{titles} has no row that can be used: give the title file of UPMC Food-101")
        return to_table(records.values())


class ImagesOnDisk:
    """An index of the image files of a split, by class and file name.

    File systems and title files may write the same name in different Unicode normal forms, so names are looked up both
    as written and in NFC.

    Args:
        folder: Folder that holds a folder for each class.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labels = set(class_folders(folder))
        self.paths: dict[tuple[str, str], str] = {}
        for label in self.labels:
            with guard_against_changes(folder / label):
                for name in os.listdir(folder / label):  # noqa: PTH208
                    path = f"{folder}{os.sep}{label}{os.sep}{name}"
                    self.paths.setdefault((label, unicodedata.normalize("NFC", name)), path)
                    self.paths[label, name] = path
        self.names = {name for _, name in self.paths}
        self._name_counts = Counter(name for _, name in self.paths)

    def find(self, row: TitleRow) -> str | None:
        """Return the path of a row's image, or None where its class has no such file."""
        label = str(row.label)
        return self.paths.get((label, row.image)) or self.paths.get((label, unicodedata.normalize("NFC", row.image)))

    def id_of(self, row: TitleRow) -> str:
        """Return the image's file name, preceded by ``<class>/`` if several classes have an image of that name."""
        return row.image if self._name_counts[row.image] <= 1 else f"{row.label}/{row.image}"
