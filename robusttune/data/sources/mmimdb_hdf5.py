"""MM-IMDb in its single HDF5 file, which holds small posters, and plots as sequences of word numbers."""

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
from robusttune.data.sources.base import Published, Record, Source, none_if_blank, require_paths, to_table
from robusttune.data.sources.extras import import_extra
from robusttune.data.sources.files import guard_against_changes
from robusttune.data.sources.mmimdb import GENRES, SAMPLES
from robusttune.data.sources.vocabulary import read_words
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

CAFFE_MEAN = np.array([103.939, 116.779, 123.68])  # mean blue, green and red, subtracted in the distributed file

# Expected shape (None for any length) and kinds of data type of each data set in the file, see `_kind`.
FORMS: dict[str, tuple[tuple[int | None, ...], tuple[str, ...]]] = {
    "genres": ((None, len(GENRES)), ("i", "u", "f", "b")),
    "sequences": ((None,), ("vi", "vu")),
    "images": ((None, 3, None, None), ("i", "u", "f")),
    "imdb_ids": ((None,), ("S",)),
}


@dataclass(frozen=True)
class MMIMDbHDF5(Source):
    """The MM-IMDb data set as ``multimodal_imdb.hdf5``, with the vocabulary in ``metadata.npy``.

    The rows of the HDF5 file are the training, the validation and the test samples, in this order. Genres are in
    alphabetical order; the file's own order is mapped by name.

    Source: Arevalo et al., Gated Multimodal Units for Information Fusion (arXiv 1702.01992).

    Args:
        root: Folder that holds both files.
        sizes: Numbers of samples in train, val and test. Their sum must be the number of rows in the file.
    """

    root: str
    sizes: tuple[int, int, int] = (15_552, 2_608, 7_799)
    multilabel = True
    published = Published(SAMPLES, classes=len(GENRES))

    def __post_init__(self) -> None:
        hint = "set data.source.root to the folder that holds multimodal_imdb.hdf5 and metadata.npy"
        require_paths(self.path, self.path.with_name("metadata.npy"), hint=hint)

    @property
    def path(self) -> Path:
        """Return the path of the HDF5 file."""
        return user_path(self.root) / "multimodal_imdb.hdf5"

    @property
    def images(self) -> ImageReader:
        """Return a reader of the posters in the HDF5 file."""
        return Posters(self.path)

    def class_names(self, table: pa.Table) -> list[str]:
        """Return the 23 genres in alphabetical order, also those that no film of the table has."""
        return list(GENRES)

    def read(self, split: Split) -> pa.Table | None:
        """Return the records of ``train``, ``val`` or ``test``, or None for ``predict``.

        Raises:
            RobustTuneError: If a file is damaged or incomplete, does not match ``sizes``, or h5py is not installed.
        """
        if split == "predict":
            return None
        position = ("train", "val", "test").index(split)
        start, end = sum(self.sizes[:position]), sum(self.sizes[: position + 1])
        try:
            with guard_against_changes(self.path), open_hdf5(self.path) as file:
                self._check(file)
                names = _genres(self.path, file["genres"].attrs.get("target_names"))
                multi_hot, numbers = file["genres"][start:end] > 0, file["sequences"][start:end]
                ids = file["imdb_ids"].asstr()[start:end] if "imdb_ids" in file else range(start, end)
        except RobustTuneError:
            raise
        except Exception as error:  # h5py raises many types on damaged files
            raise RobustTuneError(f"{self.path} is damaged ({error!s:.120}): fetch it again") from None
        words = self._words
        bad = Problems(self.path, "rows")
        for row, sequence in enumerate(numbers, start):
            unknown = [number for number in sequence.tolist() if number not in words]
            if unknown:
                problem = "have numbers of words that metadata.npy has not"
                bad.add(f"row {row}, {unknown[0]}", problem, "fetch both again")
        bad.add_repeats((str(sample_id), f"row {row}") for row, sample_id in enumerate(ids, start))
        bad.refuse(len(numbers))
        return to_table(
            Record(
                str(sample_id),
                str(start + row),
                none_if_blank(" ".join(words[number] for number in numbers[row].tolist())),
                [name for name, is_genre in zip(names, multi_hot[row], strict=True) if is_genre],
            )
            for row, sample_id in enumerate(ids)
        )

    @cached_property
    def _words(self) -> dict[int, str]:
        return read_words(self.path.with_name("metadata.npy"))

    def _check(self, file: Any) -> None:
        """Check that the open HDF5 file has the data sets of `FORMS` and one row per sample.

        Raises:
            RobustTuneError: If a data set is absent, has another shape or type, or another number of rows.
        """
        for name, (shape, kinds) in FORMS.items():
            found = file.get(name)
            has = getattr(found, "shape", None) or ()
            is_form = len(has) == len(shape) and all(size in (None, n) for size, n in zip(shape, has, strict=True))
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
    """A reader of the posters in MM-IMDb's HDF5 file, whose names are row numbers, counted from 0.

    Args:
        path: Path of the HDF5 file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    def missing(self, names: Iterable[str | None]) -> list[str]:
        """Return the names that are beyond the last row of the file."""
        rows = len(self._images)
        return [name for name in names if name is not None and int(name) >= rows]

    def read(self, name: str) -> Image.Image:
        """Return a poster as RGB.

        Raises:
            UnreadableImageError: If the row cannot be read.
        """
        try:
            pixels, centred = self._images[int(name)].transpose(1, 2, 0), self._centred
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UnreadableImageError(f"the poster in row {name} of {self.path} cannot be read ({error})") from None
        if centred:  # The differences were truncated to integers, towards 0, and the channels are in BGR order.
            pixels = (pixels + np.where(pixels < 0, np.floor(CAFFE_MEAN), np.ceil(CAFFE_MEAN)))[..., ::-1]
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def digest(self, name: str) -> bytes:
        """Return a 16-byte hash of the file's path, size and times, and the row number."""
        # Hashing the pixels would mean reading all posters, which takes as long as training with them.
        stat = self.path.stat()
        identity = f"{self.path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {name}"
        return hashlib.blake2b(identity.encode(), digest_size=16).digest()

    @property
    def _images(self) -> Any:
        """Return the file's posters, shape (N, 3, H, W).

        Each process opens the file itself, because an open HDF5 file cannot be shared with forked worker processes.
        """
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), open_hdf5(self.path))
        return self._opened[1]["images"]

    @cached_property
    def _centred(self) -> bool:
        """Return whether the file holds pixels minus `CAFFE_MEAN`, as the distributed one does.

        If so, some pixels are negative; the first 16 posters are enough to see that.
        """
        for row in range(min(16, len(self._images))):
            with suppress(OSError):  # a damaged poster is no evidence
                if (self._images[row] < 0).any():
                    return True
        return False


def open_hdf5(path: Path) -> Any:
    """Open an HDF5 file for reading.

    Returns:
        Open `h5py.File`, to be closed by the caller.

    Raises:
        RobustTuneError: If it is not an HDF5 file, is damaged, or h5py is not installed.
    """
    h5py = import_extra("h5py", "hdf5")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise RobustTuneError(f"{path} is no whole HDF5 file ({error!s:.120}): fetch it again") from None


def _kind(dtype: Any) -> str:
    """Return NumPy's kind letter of an HDF5 data type: ``S`` for strings, ``v`` + letter for variable-length arrays."""
    h5py = import_extra("h5py", "hdf5")
    inner = h5py.check_vlen_dtype(dtype)
    if h5py.check_string_dtype(dtype) is not None:
        return "S"
    return str(dtype.kind) if inner is None else f"v{inner.kind}"


def _genres(path: Path, attribute: Any) -> list[str]:
    """Return the genres in the order of the file's columns.

    Raises:
        RobustTuneError: If the attribute is not a JSON list of the 23 genres.
    """
    try:
        names: Any = json.loads(attribute)
    except (TypeError, ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or sorted(map(str, names)) != list(GENRES):
        raise RobustTuneError(f"{path} does not name the 23 genres (it says {names!r:.80}): fetch it again")
    return names
