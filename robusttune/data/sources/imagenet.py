"""ImageNet (arXiv 1409.0575) and its variants that serve as test sets: V2, Sketch, A and R."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

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
from robusttune.data.sources.files import class_folders, image_files, read_lines
from robusttune.paths import user_path
from robusttune.types import Split


class WordNetFolders(Source):
    """A base for data sets with one folder per class, named by its WordNet id or by its class number.

    The file ``classnames.txt`` has a line ``<id> <name>`` per class and defines names and order of the classes. Names
    that occur twice in it (crane, maillot) get the id in brackets, so that both remain separate classes.

    Attributes:
        root: Folder of the data set.
        classnames: Path of the file of ids and names.
        numbered: Flag, True if folders are named by class number, counted from 0, instead of WordNet id.
    """

    root: str
    classnames: str
    numbered: ClassVar[bool] = False

    @cached_property
    def names(self) -> dict[str, str]:
        """Return the class names by the name of their folder.

        Raises:
            RobustTuneError: If the file of ids and names cannot be read or parsed.
        """
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
        names = make_unique(ids)
        return {str(number): name for number, name in enumerate(names.values())} if self.numbered else names

    def class_names(self, table: pa.Table) -> list[str]:
        """Return the names of the classes that occur in ``table``, in the order of the file of ids and names."""
        has = names_of_classes(table)
        return [name for name in self.names.values() if name in has]

    def images_of(self, folder: Path) -> pa.Table:
        """Return the images in the class folders of a folder, as a table of `robusttune.data.sources.base.SCHEMA`.

        Raises:
            RobustTuneError: If a folder has the name of no class, or has no images.
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
    """The ImageNet data set, with images in ``<root>/{train,val}/<id>/*.JPEG``.

    Following common practice, ``val`` is used for both validation and test.

    Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (arXiv 1409.0575).

    Args:
        root: Folder that holds ``train`` and ``val``.
        classnames: File with a line ``<id> <name>`` for each class.
    """

    root: str
    classnames: str
    published = Published(
        {"train": 1_281_167, "val": 50_000, "test": 50_000}, classes=1000, per_class={"val": 50, "test": 50}
    )
    validates_on_test = True

    def __post_init__(self) -> None:
        folders = (user_path(self.root) / split for split in ("train", "val"))
        require_paths(folders=folders, hint="set data.source.root to the folder that holds train/ and val/ of ImageNet")
        require_paths(user_path(self.classnames), hint="set data.source.classnames to the file of ids and names")

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of a split, or None for ``predict``. ``val`` and ``test`` have the same images.

        Raises:
            RobustTuneError: If a folder cannot be read, has the name of no class, or has no images.
        """
        if split == "predict":
            return None
        return self.images_of(user_path(self.root) / ("train" if split == "train" else "val"))


@dataclass(frozen=True)
class ImageNetVariant(WordNetFolders):
    """A test set with the classes of ImageNet, or some of them, such as ImageNet-V2, -Sketch, -A and -R.

    Args:
        root: Folder that holds a folder for each class.
        classnames: File with a line ``<id> <name>`` for each class of ImageNet.
        numbered: Flag, True if folders are named by the line of the class in that file, counted from 0, as in
            ImageNet-V2; False if they are named by WordNet id.
        published: Published counts, which `verify` compares a copy with.
    """

    root: str
    classnames: str
    numbered: bool = False  # type: ignore[misc]
    published: Published | None = None

    def __post_init__(self) -> None:
        require_paths(folders=[user_path(self.root)], hint="set data.source.root to the folder of the classes' folders")
        require_paths(user_path(self.classnames), hint="set data.source.classnames to the file of ids and names")

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of ``test``, or None for other splits.

        Raises:
            RobustTuneError: If a folder cannot be read, has the name of no class, or has no images.
        """
        return self.images_of(user_path(self.root)) if split == "test" else None
