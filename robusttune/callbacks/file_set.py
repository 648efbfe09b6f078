"""Replacement of a set of files as a whole: no earlier file is replaced before all new ones are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from robusttune.paths import digest_of_file, partial_of, sync

Writers = dict[str, Callable[[Path], object]]  # file name -> function that writes the file's content to a path


def replace_together(
    folder: Path,
    writers: Writers,
    listing: str,
    about: Mapping[str, Any],
    stale: Iterable[str] = (),
    written: Mapping[str, Path] | None = None,
) -> None:
    """Write a set of files to temporary paths, then replace the files of an earlier set one after the other.

    If a file cannot be written, all files of the earlier set stay. The listing is replaced last. It contains the
    SHA-256 of each file under ``files``. So a reader can recognise a mixture of two sets, which remains if the process
    is killed between two replacements.

    Args:
        folder: Folder of the files; it is created if it is missing.
        writers: Functions that write the files, by path relative to the folder.
        listing: Relative path of the JSON file that lists the others.
        about: Further content of the listing, JSON values by key.
        stale: Relative paths of files that an earlier set may have. Those that the new set lacks are removed.
        written: Temporary paths of further files of the set, which are written already, by relative path.

    Raises:
        OSError: A file cannot be written.
    """
    partials = {**(written or {}), **{name: partial_of(folder / name) for name in (*writers, listing)}}
    try:
        for name, write in writers.items():
            partials[name].parent.mkdir(parents=True, exist_ok=True)
            write(partials[name])
            sync(partials[name])
        digests = {name: digest_of_file(path) for name, path in partials.items() if name != listing}
        content = {**about, "files": digests}
        partials[listing].parent.mkdir(parents=True, exist_ok=True)
        partials[listing].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        sync(partials[listing])
        for name, partial in partials.items():
            partial.replace(folder / name)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
    for name in {*stale} - {*partials}:
        (folder / name).unlink(missing_ok=True)
