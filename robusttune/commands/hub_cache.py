"""What the Hugging Face hub's clients have put on disk: where it is, and whether it is whole."""

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

from robusttune.data.sources.extras import extra
from robusttune.encoders.hub import cached_commit, hub_folder

CHECKSUM = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
BLOCK = 1 << 20  # bytes


class Repository(NamedTuple):
    """A repository of the hub, at a revision.

    Attributes:
        name: of it.
        revision: branch, tag or commit; None for ``main``.
        kind: ``model`` or ``dataset``.
    """

    name: str
    revision: str | None
    kind: str

    @property
    def commit(self) -> str | None:
        """The commit that is on disk, or None."""
        return cached_commit(*self)

    @property
    def snapshot(self) -> Path | None:
        """The folder of its files, as far as they were fetched, or None."""
        folder = hub_folder(self.name, self.kind) / "snapshots" / (self.commit or "none")
        return folder if folder.is_dir() else None

    @property
    def prepared(self) -> list[Path]:
        """Folders of the tables that were made of its files."""
        if self.kind != "dataset" or self.commit is None:
            return []
        return sorted(tables_folder().glob(f"*/*/*/{self.commit}"))  # name, configuration, version, commit

    @property
    def folder(self) -> Path | None:
        """The folder of all that was fetched or made of it, at any commit, or None."""
        if self.prepared:
            return self.prepared[0].parents[2]
        return None if self.snapshot is None else self.snapshot.parents[1]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        folders = [*self.prepared, *([self.snapshot] if self.snapshot else [])]
        return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())

    def damaged(self) -> list[Path]:
        """What is not as it was fetched or made: files, and folders of tables."""
        files = sorted(path for path in self.snapshot.rglob("*") if not path.is_dir()) if self.snapshot else []
        return [path for path in files if not _is_whole(path)] + [path for path in self.prepared if not _is_read(path)]

    def remove(self, damaged: list[Path]) -> None:
        """Remove what is damaged, and the tables, which may have been made of it."""
        for path in damaged:
            for file in _chain(path):
                if file.is_file() or file.is_symlink():
                    file.unlink()
        for folder in self.prepared:
            shutil.rmtree(folder)


def tables_folder() -> Path:
    """The folder that tables of all data sets are made in."""
    return Path(extra("datasets", "huggingface").config.HF_DATASETS_CACHE).expanduser()


def _is_whole(path: Path) -> bool:
    """Whether a file of a snapshot has its checksum, which is the name of what it links to: SHA-256, or git's SHA-1."""
    if not path.exists():
        return False
    checksum = path.readlink().name if path.is_symlink() else ""  # a file system without links has no checksums
    if not CHECKSUM.fullmatch(checksum):
        return True
    digest = hashlib.sha256() if len(checksum) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == checksum


def _is_read(folder: Path) -> bool:
    """Whether the tables in a folder can be read, and have as many rows as were made."""
    try:
        splits = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))["splits"]
        rows: int = sum(batch.num_rows for path in folder.glob("*.arrow") for batch in _batches(path))
    except (OSError, ValueError, LookupError, TypeError):
        return False
    made: int = sum(split["num_examples"] for split in splits.values())
    return rows == made


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(os.fspath(path)) as file:
        yield from pa.ipc.open_stream(file)


def _chain(path: Path) -> list[Path]:
    """A link, what it links to, and so on to the end."""
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / chain[-1].readlink())
    return chain
