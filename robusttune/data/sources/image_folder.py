"""Images in a folder for each class."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from robusttune.data.sources.base import Record, Source, require, to_table
from robusttune.data.sources.files import class_folders, image_files
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split


@dataclass(frozen=True)
class ImageFolder(Source):
    """A folder for each split, and in it a folder for each class, with images at any depth.

    Args:
        train: folder to train on.
        val: folder to validate on; without one, a part of ``train`` is held out.
        test: folder to test on.
        predict: folder of images to predict, in no classes.
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None
    predict: str | None = None

    def __post_init__(self) -> None:
        given = {split: getattr(self, split) for split in ("train", "val", "test", "predict")}
        if not any(given.values()):
            raise RobustTuneError("no folder is given: set data.source.train, and val or test where there are any")
        for split, path in given.items():
            if path is not None:
                require(folders=[user_path(path)], hint=f"set data.source.{split} to a folder")

    def read(self, split: Split) -> pa.Table | None:
        name: str | None = getattr(self, split)
        if name is None:
            return None
        folder = user_path(name)
        if split == "predict":
            return to_table(Record(file.name, file.path, None, None) for file in image_files(folder))
        files = image_files(folder, class_folders(folder))
        return to_table(Record(file.name, file.path, None, [file.folder]) for file in files)
