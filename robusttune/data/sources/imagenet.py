"""ImageNet (arXiv 1409.0575), and the test sets that go with it: V2, Sketch, A, R."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Published, Record, Source, apart, names_of_classes, require, to_table
from robusttune.data.sources.files import class_folders, image_files, read_lines
from robusttune.paths import user_path
from robusttune.types import Split


class WordNetFolders(Source):
    """Images in a folder for each class, named by its WordNet id, or by its place among all classes.

    Classes have the names, and the order, of ``classnames.txt``: ``<id> <name>``. Names that come twice there (crane,
    maillot) have the id added, so that labels follow the id.
    """

    root: str
    classnames: str
    numbered: ClassVar[bool] = False

    @cached_property
    def names(self) -> dict[str, str]:
        """Class names by what their folders are called."""
        path = user_path(self.classnames)
        ids: dict[str, str] = {}
        bad = Problems(path, "lines")
        lines = read_lines(path)
        for number, line in lines:
            wnid, _, name = line.partition(" ")
            if not name.strip() or wnid in ids:
                bad.add(f"line {number}, {line!r:.60}", "are no new id and name")
            ids[wnid] = name.strip()
        bad.refuse(len(lines))
        names = apart(ids)
        return {str(place): name for place, name in enumerate(names.values())} if self.numbered else names

    def class_names(self, table: pa.Table) -> list[str]:
        has = names_of_classes(table)
        return [name for name in self.names.values() if name in has]

    def images_of(self, folder: Path) -> pa.Table:
        """The images in the class folders of a folder, as a table of `SCHEMA`.

        Raises:
            RobustTuneError: a folder is that of no class, or has no images.
        """
        bad = Problems(folder, "folders")
        classes = class_folders(folder)
        for name in classes:
            if name not in self.names:
                bad.add(name, f"are those of no class of {self.classnames}")
        bad.refuse(len(classes))
        files = image_files(folder, classes)
        return to_table(Record(file.name, file.path, None, [self.names[file.folder]]) for file in files)


@dataclass(frozen=True)
class ImageNet(WordNetFolders):
    """ImageNet: ``<root>/{train,val}/<id>/*.JPEG``. ``val`` is used to validate and, as is the custom, to test.

    Args:
        root: the folder that holds ``train`` and ``val``.
        classnames: file with a line ``<id> <name>`` for each class.
    """

    root: str
    classnames: str
    published = Published(
        {"train": 1_281_167, "val": 50_000, "test": 50_000}, classes=1000, of_each_class={"val": 50, "test": 50}
    )
    validates_on_test = True

    def __post_init__(self) -> None:
        folders = (user_path(self.root) / split for split in ("train", "val"))
        require(folders=folders, hint="set data.source.root to the folder that holds train/ and val/ of ImageNet")
        require(user_path(self.classnames), hint="set data.source.classnames to the file of ids and names")

    def read(self, split: Split) -> pa.Table | None:
        if split == "predict":
            return None
        return self.images_of(user_path(self.root) / ("train" if split == "train" else "val"))


@dataclass(frozen=True)
class ImageNetVariant(WordNetFolders):
    """A test set in the folders of ImageNet's classes, or of some of them: V2, Sketch, A, R.

    Args:
        root: the folder that holds a folder for each class.
        classnames: file with a line ``<id> <name>`` for each class of ImageNet.
        numbered: folders are named by the place of the class in that file, from 0, as those of ImageNet-V2.
        published: what a whole copy has.
    """

    root: str
    classnames: str
    numbered: bool = False  # type: ignore[misc]
    published: Published | None = None

    def __post_init__(self) -> None:
        require(folders=[user_path(self.root)], hint="set data.source.root to the folder of the classes' folders")
        require(user_path(self.classnames), hint="set data.source.classnames to the file of ids and names")

    def read(self, split: Split) -> pa.Table | None:
        return self.images_of(user_path(self.root)) if split == "test" else None
