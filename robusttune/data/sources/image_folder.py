"""Image data sets with one folder per class."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from robusttune.data.sources.base import Record, Source, require_paths, to_table
from robusttune.data.sources.files import class_folders, image_files
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split


@dataclass(frozen=True)
class ImageFolder(Source):
    """An image data set with one folder per split that holds one folder per class, with images at any depth.

    Args:
        train: Folder of training images.
        val: Folder of validation images; without it, a part of ``train`` is held out.
        test: Folder of test images.
        predict: Folder of images to predict, without class folders.

    Raises:
        RobustTuneError: If no folder is given, or a folder does not exist.
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
                require_paths(folders=[user_path(path)], hint=f"set data.source.{split} to a folder")

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of a split, labelled by class folder, or None where no folder is given for it.

        Raises:
            RobustTuneError: If a folder cannot be read or has no images.
        """
        name: str | None = getattr(self, split)
        if name is None:
            return None
        folder = user_path(name)
        if split == "predict":
            return to_table(Record(file.name, file.path, None, None) for file in image_files(folder))
        files = image_files(folder, class_folders(folder))
        return to_table(Record(file.name, file.path, None, [file.folder]) for file in files)
