"""MM-IMDb as its one HDF5 file: small posters, and plots as the numbers of their words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from robusttune.data.images import ImageReader, UnreadableImageError
from robusttune.data.problems import Problems
from robusttune.data.sources.base import Published, Record, Source, or_absent, require, to_table
from robusttune.data.sources.extras import extra
from robusttune.data.sources.files import unchanged
from robusttune.data.sources.mmimdb import GENRES, SAMPLES
from robusttune.data.sources.vocabulary import read_words
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

CAFFE_MEAN = np.array([103.939, 116.779, 123.68])  # of blue, green and red, which the file's makers took off

# Sides, of which None may have any length, and kinds of what the file holds.
FORMS: dict[str, tuple[tuple[int | None, ...], tuple[str, ...]]] = {
    "genres": ((None, len(GENRES)), ("i", "u", "f", "b")),
    "sequences": ((None,), ("vi", "vu")),
    "images": ((None, 3, None, None), ("i", "u", "f")),
    "imdb_ids": ((None,), ("S",)),
}


@dataclass(frozen=True)
class MMIMDbHDF5(Source):
    """MM-IMDb as ``multimodal_imdb.hdf5``, its splits one after the other, with ``metadata.npy`` for the words.

    Genres are in alphabetical order, whatever the file's, which are mapped by name.

    Args:
        root: the folder that holds both files.
        sizes: numbers of samples in train, val and test, in the order of the rows.
    """

    root: str
    sizes: tuple[int, int, int] = (15_552, 2_608, 7_799)
    multilabel = True
    published = Published(SAMPLES, classes=len(GENRES))

    def __post_init__(self) -> None:
        hint = "set data.source.root to the folder that holds multimodal_imdb.hdf5 and metadata.npy"
        require(self.path, self.path.with_name("metadata.npy"), hint=hint)

    @property
    def path(self) -> Path:
        return user_path(self.root) / "multimodal_imdb.hdf5"

    @property
    def images(self) -> ImageReader:
        return Posters(self.path)

    def class_names(self, table: pa.Table) -> list[str]:
        return list(GENRES)

    def read(self, split: Split) -> pa.Table | None:
        if split == "predict":
            return None
        place = ("train", "val", "test").index(split)
        start, end = sum(self.sizes[:place]), sum(self.sizes[: place + 1])
        try:
            with unchanged(self.path), open_hdf5(self.path) as file:
                self._check(file)
                names = _genres(self.path, file["genres"].attrs.get("target_names"))
                hot, numbers = file["genres"][start:end] > 0, file["sequences"][start:end]
                ids = file["imdb_ids"].asstr()[start:end] if "imdb_ids" in file else range(start, end)
        except RobustTuneError:
            raise
        except Exception as error:  # whatever h5py raises on damaged files
            raise RobustTuneError(f"{self.path} is damaged ({error!s:.120}): fetch it again") from None
        words = self._words
        bad = Problems(self.path, "rows")
        for row, sequence in enumerate(numbers, start):
            unknown = [number for number in sequence.tolist() if number not in words]
            if unknown:
                what = "have numbers of words that metadata.npy has not"
                bad.add(f"row {row}, {unknown[0]}", what, "fetch both again")
        bad.add_repeats((str(sample_id), f"row {row}") for row, sample_id in enumerate(ids, start))
        bad.refuse(len(numbers))
        return to_table(
            Record(
                str(sample_id),
                str(start + row),
                or_absent(" ".join(words[number] for number in numbers[row].tolist())),
                [name for name, carried in zip(names, hot[row], strict=True) if carried],
            )
            for row, sample_id in enumerate(ids)
        )

    @cached_property
    def _words(self) -> dict[int, str]:
        return read_words(self.path.with_name("metadata.npy"))

    def _check(self, file: Any) -> None:
        """That the file has what is read of it, in the forms in which it is read."""
        for name, (shape, kinds) in FORMS.items():
            found = file.get(name)
            has = getattr(found, "shape", None) or ()
            is_form = len(has) == len(shape) and all(side in (None, n) for side, n in zip(shape, has, strict=True))
            if found is None and name == "imdb_ids":
                continue
            if not is_form or _kind(found.dtype) not in kinds:
                raise RobustTuneError(f"{self.path} has no {name} as it ought to have, but {found}: fetch it again")
            if len(found) != sum(self.sizes):
                raise RobustTuneError(
                    f"{self.path} has {len(found)} rows of {name}, and data.source.sizes says {sum(self.sizes)}: "
                    "fetch the file again, or give the sizes of its splits"
                )


class Posters(ImageReader):
    """The posters of the file, by row.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    def missing(self, names: Iterable[str | None]) -> list[str]:
        rows = len(self._images)
        return [name for name in names if name is not None and int(name) >= rows]

    def read(self, name: str) -> Image.Image:
        try:
            pixels, centred = self._images[int(name)].transpose(1, 2, 0), self._centred
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UnreadableImageError(f"the poster in row {name} of {self.path} cannot be read ({error})") from None
        if centred:  # and cut off to whole numbers, towards 0; and blue comes first
            pixels = (pixels + np.where(pixels < 0, np.floor(CAFFE_MEAN), np.ceil(CAFFE_MEAN)))[..., ::-1]
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def digest(self, name: str) -> bytes:
        # Of the file as it stands and of the row: to read all posters would take as long as to train with them.
        stat = self.path.stat()
        about = f"{self.path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {name}"
        return hashlib.blake2b(about.encode(), digest_size=16).digest()

    @property
    def _images(self) -> Any:
        """The file's posters, (N, 3, H, W); each process opens the file itself."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_hdf5(self.path))
        return self._opened[1]["images"]

    @cached_property
    def _centred(self) -> bool:
        """Whether the means were taken off, as in the file in circulation: then some pixels are below 0."""
        for row in range(min(16, len(self._images))):
            with suppress(OSError):  # one that is damaged tells nothing
                if (self._images[row] < 0).any():
                    return True
        return False


def open_hdf5(path: Path) -> Any:
    """An open HDF5 file.

    Raises:
        RobustTuneError: it is none, or is damaged, or h5py is not installed.
    """
    h5py = extra("h5py", "hdf5")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise RobustTuneError(f"{path} is no whole HDF5 file ({error!s:.120}): fetch it again") from None


def _kind(dtype: Any) -> str:
    """The letter of a type; of one of arrays, ``v`` and that of what they hold."""
    h5py = extra("h5py", "hdf5")
    inner = h5py.check_vlen_dtype(dtype)
    if h5py.check_string_dtype(dtype) is not None:
        return "S"
    return str(dtype.kind) if inner is None else f"v{inner.kind}"


def _genres(path: Path, attribute: Any) -> list[str]:
    try:
        names: Any = json.loads(attribute)
    except (TypeError, ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or sorted(map(str, names)) != list(GENRES):
        raise RobustTuneError(f"{path} does not name the 23 genres (it says {names!r:.80}): fetch it again")
    return names
