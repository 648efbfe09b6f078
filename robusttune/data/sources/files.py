"""Safe reading of text, JSON and image folders: no paths outside the data set, no files that change while read."""

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

PASSED_OVER = {  # ignored, as are names that begin with a dot, or with @, which Synology's drives use
    *("__macosx", "#recycle", "#snapshot", "lost+found", "$recycle.bin", "system volume information"),
    *("thumbs.db", "desktop.ini"),
}


def path_kind(path: Path) -> Literal["file", "folder", "nothing", "other"]:
    """Return the kind of a path, following links. A broken link and a device are ``other``.

    Raises:
        RobustTuneError: If the path cannot be examined, for example because a permission is missing.

    Example:
        >>> path_kind(Path("/")), path_kind(Path("/no/such/path"))
        ('folder', 'nothing')
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        return "other" if path.is_symlink() else "nothing"
    except OSError as error:
        raise RobustTuneError(f"{path!s:.300}: {error.strerror}: check the path, and who may use it") from None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


class ImageFile(NamedTuple):
    """An image file in a class folder.

    Attributes:
        folder: Name of the class folder; empty if images are not sorted into classes.
        name: Path relative to the parent of the class folder, such as ``cat/1.jpg``.
        path: Full path.
    """

    folder: str
    name: str
    path: str


@contextmanager
def guard_against_changes(path: Path) -> Iterator[None]:
    """Guard a ``with`` block that reads a file or folder against changes during the block.

    Args:
        path: Path that the block reads.

    Raises:
        RobustTuneError: If the path cannot be read, is neither a regular file nor a folder, or changed in the block.
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
    """Read a UTF-8 text file, with or without a byte order mark. Line ends become ``\\n``.

    Raises:
        RobustTuneError: If the file cannot be read, changed while it was read, or is not UTF-8.
    """
    try:
        with guard_against_changes(path):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RobustTuneError(f"{path} is not UTF-8 (byte {error.start}): convert it to UTF-8") from None


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Read the lines of a text file that are not blank.

    Returns:
        Pairs of the line number, counted from 1, and the line without surrounding white space.

    Raises:
        RobustTuneError: If `read_text` fails.
    """
    lines = ((number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1))
    return [(number, line) for number, line in lines if line]


def read_json(path: Path) -> Any:
    """Load a JSON file.

    Raises:
        RobustTuneError: If `read_text` fails, or the file is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise RobustTuneError(f"{path} is not JSON ({error!s:.120}): fetch it again") from None


def within(root: Path, name: str) -> str | None:
    """Return the absolute path of a file named relative to ``root``, or None where the name leads out of ``root``.

    Only the text of the name is checked. Links that the user has made within the folder may lead elsewhere.

    Args:
        root: Folder that the name is relative to.
        name: Relative path, or an absolute path that must be within ``root``.

    Example:
        >>> within(Path("/data"), "img/1.jpg"), within(Path("/data"), "../secret")
        ('/data/img/1.jpg', None)
    """
    folder = os.path.abspath(root)  # noqa: PTH100, Path.resolve follows links
    path = os.path.normpath(os.path.join(folder, name))  # noqa: PTH118
    inside = path.startswith(folder.rstrip(os.sep) + os.sep)
    return path if inside and "\0" not in name else None


def class_folders(root: Path) -> list[str]:
    """Return the names of the class folders in a folder, sorted.

    Hidden folders and those that operating systems create are ignored. Image files next to the class folders belong to
    no class, and a warning counts them.

    Raises:
        RobustTuneError: If there are no class folders, the folder cannot be read, or it contains a broken link.
    """
    with guard_against_changes(root), os.scandir(root) as found:
        entries = [entry for entry in found if not _is_ignored(entry.name)]
    bad, folders = Problems(root, "folders and files"), []
    beside = sorted(e.name for e in entries if e.name.lower().endswith(image_endings()) and not _is_folder(e))
    if beside:
        description = "image files beside the folders of classes, such as"
        log.warning("%s has %d %s %r: they are left out", root, len(beside), description, beside[0])
    for entry in entries:
        if _is_folder(entry):
            folders.append(entry.name)
        elif _is_broken_link(entry):
            bad.add(repr(entry.name), "are links that lead nowhere")
    bad.refuse(len(entries))
    Problems(root, "folders of classes").refuse(len(folders))
    return sorted(folders)


def image_files(folder: Path, classes: Iterable[str] = ("",)) -> list[ImageFile]:
    """Find the image files in class folders at any depth.

    Image files are recognised by their extension. Hidden files are ignored, and a warning counts the files with other
    extensions.

    Args:
        folder: Parent of the class folders.
        classes: Names of the class folders to search; by default ``folder`` itself is searched.

    Returns:
        Image files in the order of ``classes``, sorted by path within each class.

    Raises:
        RobustTuneError: If a class folder has no images or cannot be read, a link is broken or leads back to a folder
            that contains it, or names are not UTF-8.
    """
    files, bad, tops = [], Problems(folder, "folders"), {name: str(folder / name) for name in classes}
    others: Counter[str] = Counter()  # number of files by other extensions
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
    """Return whether a text can be encoded as UTF-8. A lone surrogate, which JSON can express, cannot.

    Example:
        >>> is_unicode("soup"), is_unicode(chr(0xD800))
        (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(folder: str, above: tuple[tuple[int, int], ...], others: Counter[str]) -> Iterator[str]:
    """Yield the paths of image files at any depth, and count the other files by extension.

    Args:
        folder: Folder to search.
        above: Device and inode numbers of the folders that contain it, to detect loops of links.
        others: Counts of other files by extension, to be increased.
    """
    try:
        here = os.stat(folder)  # noqa: PTH116
        if (here.st_dev, here.st_ino) in above:
            raise RobustTuneError(f"{folder} is a link that leads back to a folder that it is in: remove it")
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not _is_ignored(entry.name)]
    except OSError as error:
        raise RobustTuneError(f"{folder} cannot be read ({error.strerror}): check the folder") from None
    for entry in visible:
        if _is_folder(entry):
            yield from _walk(entry.path, (*above, (here.st_dev, here.st_ino)), others)
        elif entry.name.lower().endswith(image_endings()):
            yield entry.path
        elif _is_broken_link(entry):
            raise RobustTuneError(f"{entry.path} is a link that leads nowhere: repair or remove it")
        else:
            others[os.path.splitext(entry.name)[1]] += 1  # noqa: PTH122


def _is_ignored(name: str) -> bool:
    """Return whether a file or folder is hidden, or was made by an operating system or network drive itself."""
    return name.startswith((".", "@")) or name.lower() in PASSED_OVER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_broken_link(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110, Path.exists may raise


def _state(path: Path) -> Sequence[int]:
    """Return the modification time, size and inode of a path. A change of the content changes one of them."""
    now = path.stat()
    if not stat.S_ISDIR(now.st_mode):
        refuse_irregular(path, now.st_mode)
    return now.st_mtime_ns, now.st_size, now.st_ino
