"""The local cache of the Hugging Face hub's clients: location, size and integrity of its files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from robusttune.data.sources.extras import import_extra
from robusttune.encoders.hub import cached_commit, hub_folder

CHECKSUM = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
BLOCK = 1 << 20  # bytes


class Repository(NamedTuple):
    """A repository of the Hugging Face hub at a revision, as the local cache has it.

    Attributes:
        name: Name of the repository, ``owner/name``.
        revision: Branch, tag or commit; None for ``main``.
        kind: Kind of the repository, ``model`` or ``dataset``.
    """

    name: str
    revision: str | None
    kind: str

    @property
    def commit(self) -> str | None:
        """Return the commit that is on disk, or None."""
        return cached_commit(*self)

    @property
    def snapshot(self) -> Path | None:
        """Return the folder of the files that were downloaded at this revision, or None."""
        folder = hub_folder(self.name, self.kind) / "snapshots" / (self.commit or "none")
        return folder if folder.is_dir() else None

    @property
    def prepared(self) -> list[Path]:
        """Return the folders of the Arrow tables that the ``datasets`` library has prepared from its files."""
        if self.kind != "dataset" or self.commit is None:
            return []
        return sorted(tables_folder().glob(f"*/*/*/{self.commit}"))  # name, configuration, version, commit

    @property
    def folder(self) -> Path | None:
        """Return the folder of everything on disk that belongs to the repository, at any commit, or None.

        For a data set with prepared tables it is the folder of the tables, else that of the downloaded files.
        """
        if self.prepared:
            return self.prepared[0].parents[2]
        return None if self.snapshot is None else self.snapshot.parents[1]

    @property
    def size(self) -> int:
        """Return the size on disk of files and tables at this revision, in bytes."""
        folders = [*self.prepared, *([self.snapshot] if self.snapshot else [])]
        return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())

    def damaged(self) -> list[Path]:
        """Return the damaged files and folders of tables: those with a wrong checksum or a wrong number of rows."""
        files = sorted(path for path in self.snapshot.rglob("*") if not path.is_dir()) if self.snapshot else []
        tables = [path for path in self.prepared if not _is_readable(path)]
        return [path for path in files if not _is_intact(path)] + tables

    def remove(self, damaged: list[Path]) -> None:
        """Remove damaged files, with the blobs that they link to, and all prepared tables.

        The tables are removed because they may have been prepared from a damaged file.

        Args:
            damaged: Paths that `damaged` has returned.
        """
        for path in damaged:
            for file in _chain(path):
                if file.is_file() or file.is_symlink():
                    file.unlink()
        for folder in self.prepared:
            shutil.rmtree(folder)


def tables_folder() -> Path:
    """Return the folder for the tables of all data sets, which the ``datasets`` library prepares."""
    return Path(import_extra("datasets", "huggingface").config.HF_DATASETS_CACHE).expanduser()


def _is_intact(path: Path) -> bool:
    """Return whether a file of a snapshot has its checksum.

    The file is a link, and the name of its target is the checksum: a SHA-256, or the SHA-1 of a git blob.
    """
    if not path.exists():
        return False
    # A file system without links has no checksums.
    checksum = path.readlink().name if path.is_symlink() else ""
    if not CHECKSUM.fullmatch(checksum):
        return True
    digest = hashlib.sha256() if len(checksum) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == checksum


def _is_readable(folder: Path) -> bool:
    """Return whether the tables in a folder can be read and have the number of rows that was recorded for them."""
    try:
        splits = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))["splits"]
        rows: int = sum(batch.num_rows for path in folder.glob("*.arrow") for batch in _batches(path))
    except (OSError, ValueError, LookupError, TypeError):
        return False
    expected: int = sum(split["num_examples"] for split in splits.values())
    return rows == expected


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(os.fspath(path)) as file:
        yield from pa.ipc.open_stream(file)


def _chain(path: Path) -> list[Path]:
    """Return a path and, if it is a link, all its targets up to the file."""
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / chain[-1].readlink())
    return chain
