"""What sources read from disk: text, JSON, folders of images; nothing from outside, nothing half written."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from robusttune.data.images import image_endings
from robusttune.data.problems import Problems
from robusttune.errors import RobustTuneError
from robusttune.regular_files import refuse_irregular

log = logging.getLogger(__name__)

PASSED_OVER = {  # beside names that begin with a dot, or with @ as those of Synology's drives
    *("__macosx", "#recycle", "#snapshot", "lost+found", "$recycle.bin", "system volume information"),
    *("thumbs.db", "desktop.ini"),
}


def kind_of(path: Path) -> Literal["file", "folder", "nothing", "other"]:
    """What there is at a path; a link is what it leads to, and other where that is nothing.

    Raises:
        RobustTuneError: it cannot be looked at, such as for want of permission.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        return "other" if path.is_symlink() else "nothing"
    except OSError as error:
        raise RobustTuneError(f"{path!s:.300}: {error.strerror}: check the path, and who may use it") from None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


class ImageFile(NamedTuple):
    """An image file: the folder of its class, its path from what that is in, and its whole path."""

    folder: str
    name: str
    path: str


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


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, and their numbers, from 1.

    Raises:
        RobustTuneError: as `read_text`.
    """
    lines = ((number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1))
    return [(number, line) for number, line in lines if line]


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
    """Names of the folders in a folder, sorted; hidden ones and those of operating systems are left out.

    Image files that lie beside them are in no class, and counted in a warning.

    Raises:
        RobustTuneError: there are none, the folder cannot be read, or a link in it leads nowhere.
    """
    with unchanged(root), os.scandir(root) as found:
        entries = [entry for entry in found if not _is_passed_over(entry.name)]
    bad, folders = Problems(root, "folders and files"), []
    beside = sorted(e.name for e in entries if e.name.lower().endswith(image_endings()) and not _is_folder(e))
    if beside:
        what = "image files beside the folders of classes, such as"
        log.warning("%s has %d %s %r: they are left out", root, len(beside), what, beside[0])
    for entry in entries:
        if _is_folder(entry):
            folders.append(entry.name)
        elif _leads_nowhere(entry):
            bad.add(repr(entry.name), "are links that lead nowhere")
    bad.refuse(len(entries))
    Problems(root, "folders of classes").refuse(len(folders))
    return sorted(folders)


def image_files(folder: Path, classes: Iterable[str] = ("",)) -> list[ImageFile]:
    """The image files in a folder, at any depth, sorted; told by their endings, hidden ones left out.

    Files with other endings are counted in a warning.

    Args:
        folder: that they are in.
        classes: names of the folders within it to look in.

    Raises:
        RobustTuneError: a folder has no images or cannot be read, a link leads back to a folder that it is in or
            leads nowhere, or names are not UTF-8.
    """
    files, bad, tops = [], Problems(folder, "folders"), {name: str(folder / name) for name in classes}
    others: Counter[str] = Counter()  # files of other endings
    for name, top in tops.items():
        paths = sorted(_walk(top, (), others))
        files += [ImageFile(name, os.path.join(name, path[len(top) + 1 :]), path) for path in paths]  # noqa: PTH118
        if not paths:
            bad.add(repr(top), "have no images", "fill or remove them")
    bad.refuse(len(tops))
    if others:
        endings = ", ".join(f"{ending or 'none'} {count}" for ending, count in others.most_common(5))
        log.warning(
            "%s: of %d files %d are no images by their endings (%s%s), and are left out",
            *(folder, len(files) + others.total(), others.total(), endings, ", ..." * (len(others) > 5)),
        )
    bad = Problems(folder, "image files")
    for file in files:
        if not is_unicode(file.path):
            bad.add(ascii(file.name), "have names that are not UTF-8", "rename them")
    bad.refuse(len(files))
    return files


def is_unicode(text: str) -> bool:
    """Whether a text can be written, unlike a lone half of a surrogate pair, which JSON can spell."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(folder: str, above: tuple[tuple[int, int], ...], others: Counter[str]) -> Iterator[str]:
    try:
        here = os.stat(folder)  # noqa: PTH116
        if (here.st_dev, here.st_ino) in above:
            raise RobustTuneError(f"{folder} is a link that leads back to a folder that it is in: remove it")
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not _is_passed_over(entry.name)]
    except OSError as error:
        raise RobustTuneError(f"{folder} cannot be read ({error.strerror}): check the folder") from None
    for entry in shown:
        if _is_folder(entry):
            yield from _walk(entry.path, (*above, (here.st_dev, here.st_ino)), others)
        elif entry.name.lower().endswith(image_endings()):
            yield entry.path
        elif _leads_nowhere(entry):
            raise RobustTuneError(f"{entry.path} is a link that leads nowhere: mend or remove it")
        else:
            others[os.path.splitext(entry.name)[1]] += 1  # noqa: PTH122


def _is_passed_over(name: str) -> bool:
    """Whether it is hidden, or operating systems and network drives make it by themselves."""
    return name.startswith((".", "@")) or name.lower() in PASSED_OVER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110, which raises


def _state(path: Path) -> Sequence[int]:
    now = path.stat()
    if not stat.S_ISDIR(now.st_mode):
        refuse_irregular(path, now.st_mode)
    return now.st_mtime_ns, now.st_size, now.st_ino
