"""Digests of the contents of image files. A file that has not changed is not read again."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import feather

from robusttune.data.kept_files import SETTLED
from robusttune.paths import atomic_write
from robusttune.ranks import on_rank_zero, rank, world_size
from robusttune.regular_files import open_regular

Stat = tuple[int, int, int]  # size, modification time, and change time, which programs cannot set


class Digests(NamedTuple):
    """Digests of image files.

    Attributes:
        by_path: Digest of each file by path, 16 bytes, or None for an unreadable file.
        changed: Paths of the files with a content that differs from the remembered one, sorted.
    """

    by_path: dict[str, bytes | None]
    changed: list[str]


def file_digests(paths: Sequence[str], memory: Path, threads: int) -> Digests:
    """Return the digests of files. The ranks share the work, and every rank must take part.

    Args:
        paths: Paths of the files, each once.
        memory: Path of an Arrow file that remembers digests between runs, if it can be written.
        threads: Number of threads that read files on this rank.
    """
    known = _load_memory(memory)
    mine = paths[rank() :: world_size()]
    with ThreadPoolExecutor(threads) as pool:
        found = dict(zip(mine, pool.map(lambda path: _digest(path, known.get(path)), mine), strict=True))

    def merge(parts: list[dict[str, tuple[Stat | None, bytes | None]]]) -> Digests:
        """Merge the digests of all ranks, and remember them."""
        merged = {path: entry for part in parts for path, entry in part.items()}
        changed = [path for path, (_, digest) in merged.items() if path in known and known[path][1] != digest]
        if any(path not in known or known[path] != entry for path, entry in merged.items()):
            _save_memory(memory, known | merged)
        return Digests({path: digest for path, (_, digest) in merged.items()}, sorted(changed))

    return on_rank_zero(found, merge)


def _digest(path: str, known: tuple[Stat | None, bytes | None] | None) -> tuple[Stat | None, bytes | None]:
    """Return the file's `Stat` and its digest.

    The `Stat` is None if the file has just been changed: another change could leave it the same. The digest is None if
    the file is unreadable.
    """
    now = state_of(path)
    if now is None:
        return None, None
    if known is not None and known[0] == now:
        return known
    try:
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None, None
    return now if time.time_ns() - now[2] > SETTLED else None, digest


def state_of(path: str | Path) -> Stat | None:
    """Return what changes whenever a file changes; None if there is no such file."""
    try:
        stat = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _load_memory(memory: Path) -> dict[str, tuple[Stat | None, bytes | None]]:
    """Load the remembered entries by path; none if there is no valid file."""
    try:
        columns = [column.to_pylist() for column in feather.read_table(memory).columns]
        return {path: (tuple(stat) if stat else None, digest) for path, stat, digest in zip(*columns, strict=True)}
    except (OSError, ValueError, TypeError):  # the file does not exist or is damaged
        return {}


def _save_memory(memory: Path, entries: dict[str, tuple[Stat | None, bytes | None]]) -> None:
    """Save entries by path. If that is not possible, the next run reads the files again."""
    kept = [(path, stat, digest) for path, (stat, digest) in entries.items() if digest is not None]
    types = [pa.string(), pa.list_(pa.int64()), pa.binary()]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*kept, strict=True), types, strict=False)]
    if columns:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(memory) as partial:
                feather.write_feather(pa.table(columns, ["path", "stat", "digest"]), partial)
