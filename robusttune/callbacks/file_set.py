"""Files that belong together, and replace those of an earlier set only when all of them are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from robusttune.paths import digest_of_file, partial_of, sync

Writers = dict[str, Callable[[Path], object]]  # file name -> function that writes the file to the path that it is given


def replace_together(
    folder: Path, writers: Writers, listing: str, about: Mapping[str, Any], stale: Iterable[str] = ()
) -> None:
    """Write files beside those of an earlier set, then replace these one after the other.

    If one cannot be written, all of the earlier ones stay. The listing is replaced last. It has the digest of each file
    under ``files``, so that files of two sets, as a kill between two replacements leaves them, can be recognised.

    Args:
        folder: Folder of the files; it is made.
        writers: Function that writes each file, by its path in the folder.
        listing: Path of the JSON file that lists the others.
        about: Rest of the listing's content.
        stale: Paths of files that an earlier set may have; those that are not in this one are removed.

    Raises:
        OSError: a file cannot be written.
    """
    partials = {name: partial_of(folder / name) for name in (*writers, listing)}
    try:
        for name, write in writers.items():
            partials[name].parent.mkdir(parents=True, exist_ok=True)
            write(partials[name])
            sync(partials[name])
        content = {**about, "files": {name: digest_of_file(partials[name]) for name in writers}}
        partials[listing].parent.mkdir(parents=True, exist_ok=True)
        partials[listing].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        sync(partials[listing])
        for name, partial in partials.items():
            partial.replace(folder / name)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
    for name in {*stale} - {*writers}:
        (folder / name).unlink(missing_ok=True)
