"""What sources read from disk: text, JSON, folders of images; nothing from outside, nothing half written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from robusttune.errors import RobustTuneError


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Read a file within.

    Raises:
        RobustTuneError: it cannot be read, or it was written to meanwhile.
    """
    try:
        before = _state(path)
        yield
        after = _state(path)
    except OSError as error:
        raise RobustTuneError(f"{path} cannot be read ({error.strerror or error}): check the file") from None
    if before != after:
        raise RobustTuneError(f"{path} changed while it was read: wait until nothing writes to it any more")


def read_text(path: Path) -> str:
    """A text file as UTF-8, with or without a byte order mark, line ends as ``\\n``.

    Raises:
        RobustTuneError: it cannot be read, was written to meanwhile, or is not UTF-8.
    """
    try:
        with unchanged(path):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RobustTuneError(f"{path} is not UTF-8 (byte {error.start}): convert it to UTF-8") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        RobustTuneError: as `read_text`, or it is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise RobustTuneError(f"{path} is not JSON ({error!s:.120}): fetch it again") from None


def within(root: Path, name: str) -> str | None:
    """The path of a file that is named from ``root``, or None where the name leads out of it.

    Names are judged as they are written: links that somebody has made within the folder may lead elsewhere.
    """
    folder = os.path.abspath(root)  # noqa: PTH100, which would follow links
    path = os.path.normpath(os.path.join(folder, name))  # noqa: PTH118
    inside = path.startswith(folder.rstrip(os.sep) + os.sep)
    return path if inside and "\0" not in name else None


def class_folders(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are left out."""
    with unchanged(root), os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))


def image_files(folder: Path) -> list[str]:
    """Paths of the image files in a folder and those within it, sorted; told by their endings, hidden ones left out.

    Raises:
        RobustTuneError: a link leads back to a folder that it is in, or a folder cannot be read.
    """
    return sorted(_walk(folder, ()))


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    try:
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in above:
            raise RobustTuneError(f"{folder} is a link that leads back to a folder that it is in: remove it")
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise RobustTuneError(f"{folder} cannot be read ({error.strerror}): check the folder") from None
    for entry in shown:
        if _is_folder(entry):
            yield from _walk(Path(entry.path), (*above, (stat.st_dev, stat.st_ino)))
        elif entry.name.lower().endswith(_endings()):
            yield entry.path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _endings() -> tuple[str, ...]:
    return tuple(Image.registered_extensions())


def _state(path: Path) -> Sequence[int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
