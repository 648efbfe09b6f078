"""What image files hold, as digests; a file that has not changed since is not read again."""

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

from robusttune.paths import whole_file
from robusttune.ranks import on_rank_zero, rank, world_size
from robusttune.regular_files import open_regular

SETTLED = 2_000_000_000  # ns after which a file that is changed again is sure to have another time of change
Stat = tuple[int, int, int]  # size, time of modification, time of change of any kind, which nobody can set


class Digests(NamedTuple):
    """What was found.

    Attributes:
        of: digest of each file, 16 bytes, or None where it cannot be read.
        changed: files that hold something else than they did before.
    """

    of: dict[str, bytes | None]
    changed: list[str]


def file_digests(paths: Sequence[str], memory: Path, threads: int) -> Digests:
    """Digests of files; the ranks share the work, and every rank must take part.

    Args:
        paths: of the files, each once.
        memory: a file in which digests are remembered, if it can be written.
        threads: that read on this rank.
    """
    known = _recall(memory)
    mine = paths[rank() :: world_size()]
    with ThreadPoolExecutor(threads) as pool:
        found = dict(zip(mine, pool.map(lambda path: _digest(path, known.get(path)), mine), strict=True))

    def merge(parts: list[dict[str, tuple[Stat | None, bytes | None]]]) -> Digests:
        merged = {path: entry for part in parts for path, entry in part.items()}
        changed = [path for path, (_, digest) in merged.items() if path in known and known[path][1] != digest]
        if any(path not in known or known[path] != entry for path, entry in merged.items()):
            _remember(memory, known | merged)
        return Digests({path: digest for path, (_, digest) in merged.items()}, sorted(changed))

    return on_rank_zero(found, merge)


def _digest(path: str, known: tuple[Stat | None, bytes | None] | None) -> tuple[Stat | None, bytes | None]:
    """How the file stands, None where it may change again unnoticed, and its digest."""
    try:
        stat = os.stat(path)  # noqa: PTH116
        now = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if known is not None and known[0] == now:
            return known
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None, None
    return now if time.time_ns() - stat.st_ctime_ns > SETTLED else None, digest


def _recall(memory: Path) -> dict[str, tuple[Stat | None, bytes | None]]:
    try:
        columns = [column.to_pylist() for column in feather.read_table(memory).columns]
        return {path: (tuple(stat) if stat else None, digest) for path, stat, digest in zip(*columns, strict=True)}
    except (OSError, ValueError, TypeError):  # there is none, or it is damaged
        return {}


def _remember(memory: Path, entries: dict[str, tuple[Stat | None, bytes | None]]) -> None:
    """Where it cannot be written, files are read again the next time."""
    kept = [(path, stat, digest) for path, (stat, digest) in entries.items() if digest is not None]
    types = [pa.string(), pa.list_(pa.int64()), pa.binary()]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*kept, strict=True), types, strict=False)]
    if columns:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(memory) as partial:
                feather.write_feather(pa.table(columns, ["path", "stat", "digest"]), partial)
