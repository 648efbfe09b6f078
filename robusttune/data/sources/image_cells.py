"""Conversion of the image cells of a table to image names: paths, URLs, and references to embedded images."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import pyarrow as pa

from robusttune.data.packs import Packed, Packing, Part
from robusttune.data.problems import Problems
from robusttune.data.remote import SCHEMES, URL, missing_package
from robusttune.data.sources.blanks import Blanks
from robusttune.data.sources.files import is_unicode, within
from robusttune.data.sources.list_text import UnreadableListError, parse_list
from robusttune.data.sources.rows import Row
from robusttune.data.web import without_secrets
from robusttune.errors import RobustTuneError

# The first bytes of JPEG, PNG, GIF, WebP, BMP and TIFF files in base64.
MAGIC_TEXTS = "/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-9]|SUkqA|TU0AK"
BASE64 = re.compile(rf"(?:{MAGIC_TEXTS})[A-Za-z0-9+/\s]{{32,}}={{0,2}}\s*")
ANY_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
SeveralImages = Literal["first", "mean"]  # the image of a row with several that is used
URL_ROOT = Path("/root")  # stands for a URL that paths are relative to
LONGEST = 4096  # characters; Linux opens no longer path


def image_parts(cell: Any) -> Iterator[Part | Packed]:
    """Yield the images of a cell: the content of embedded images, and the path or URL of others.

    A cell holds a path, a URL, a data URL, base64 text, bytes, a dictionary with ``bytes`` and ``path``, or a list of
    these, which may be written as text. A blank cell has no images.

    Raises:
        ValueError: The cell holds something else.

    Example:
        >>> list(image_parts({"bytes": b"abc", "path": "a.png"})), list(image_parts(["a.png", "", "b.png"]))
        ([b'abc'], ['a.png', 'b.png'])
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):  # pandas writes a blank cell as NaN
        return
    if isinstance(cell, Packed):
        yield cell
    elif isinstance(cell, bytes):
        if cell:
            yield cell
    elif isinstance(cell, list | tuple):
        for item in cell:
            yield from image_parts(item)
    elif isinstance(cell, dict) and cell.keys() & {"bytes", "path"}:
        content = cell.get("bytes")
        yield from image_parts(_decode(content) if isinstance(content, str) else content or cell.get("path"))
    elif isinstance(cell, str | int) and not isinstance(cell, bool):
        yield from _text_parts(str(cell).strip())
    else:
        raise ValueError(cell)


def stored_parts(cell: Any) -> list[Part]:
    """Return the images of a cell that is read for the first time, so that it has no references; see `image_parts`."""
    return [part for part in image_parts(cell) if not isinstance(part, Packed)]


def holds_content(kind: pa.DataType) -> bool:
    """Return whether cells of an Arrow type hold the bytes of images.

    Example:
        >>> holds_content(pa.list_(pa.struct({"bytes": pa.binary()}))), holds_content(pa.string())
        (True, False)
    """
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return holds_content(kind.value_type)
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
            pa.types.is_fixed_size_binary,
        )
    )


def holds_text(kind: pa.DataType) -> bool:
    """Return whether cells of an Arrow type hold texts or lists of texts, which may name images."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return holds_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def check_several_images(setting: str) -> None:
    """Check the setting ``several_images`` of a source.

    Raises:
        RobustTuneError: It is no `SeveralImages`.
    """
    if setting not in get_args(SeveralImages):
        raise RobustTuneError(f"data.source.several_images is {setting!r}: set it to first or mean")


def is_embedded(cell: Any) -> bool:
    """Return whether a cell of a text format holds the content of an image, as a data URL or base64 text."""
    if isinstance(cell, str):
        return _is_content(cell.strip())
    if isinstance(cell, dict):
        return cell.get("bytes") is not None
    return isinstance(cell, list) and any(map(is_embedded, cell))


@dataclass(frozen=True)
class ImageCells:
    """The conversion of the image cells of one table to image names.

    Attributes:
        packing: Packing of the images that text cells embed; None if other code keeps them.
        columns: Names of the image columns.
        root: Folder or URL that paths in cells are relative to; None if there is none, and paths are refused.
        own_root: Flag, True if the user has set ``root``; then paths outside it are refused, even absolute ones.
        several: Use of several images in a row, a setting of the source.
        bad: Collection of problems, extended by cells that name no image.
        blanks: Test for blank cells.
    """

    packing: Packing | None
    columns: list[str]
    root: Path | str | None
    own_root: bool
    several: SeveralImages
    bad: Problems
    blanks: Blanks

    def used_names(self, row: Row) -> list[str]:
        """Return the names of the images of a row that are used: the first, or all; none if it has no image."""
        found = self.names(row, self.columns)
        return [*(islice(found, 1) if self.several == "first" else found)]

    def names(self, row: Row, columns: Iterable[str]) -> Iterator[str]:
        """Yield the names of the images of a row in some columns."""
        for column in columns:
            cell = row.cells.get(column)
            try:
                parts = [*image_parts(cell)]
            except ValueError:
                self.bad.add(
                    f"{row.where}, {cell!r:.40}",
                    f"have neither a path, a URL nor an image in the column {column}",
                    "write one of these there",
                )
                continue
            for part in parts:
                if not isinstance(part, str):
                    assert self.packing is not None
                    reference = self.packing.add(part) if isinstance(part, bytes) else part
                    yield reference.name(f"{row.where} of {self.packing.table.absolute()}")
                elif not self.blanks.is_blank(part, column):
                    yield self.locate(part, row.where)

    def locate(self, text: str, where: str) -> str:
        """Return the image name for a path or URL: an absolute path, or a URL. Add others to `bad`.

        Args:
            text: Text of the cell, not blank.
            where: Location of the row for messages, such as ``line 7``.

        Returns:
            Name of the image, or the cell's text if it has a problem. Whether the image exists is not checked.
        """
        if not is_unicode(text):
            self.bad.add(f"{where}, {text!r:.40}", "have an image name that is not Unicode", "rename the image")
            return text
        if len(text) > LONGEST and not text.lower().startswith("http"):
            problem = "have a text as image that is neither a path nor base64"
            self.bad.add(f"{where}, {text!r:.60}", problem, "write the paths of the images")
            return text
        url = URL.match(text)
        if url is not None and url[1].lower() != "file":
            return self._url(text, url[1].lower(), where)
        path = text if url is None else _path_in(text)
        if path is None:
            self.bad.add(f"{where}, {text!r:.80}", "have a file:// URL of another machine", "write file:///path")
            return text
        return self._path(path, where)

    def _url(self, url: str, scheme: str, where: str) -> str:
        """Return a URL, and add it to `bad` if its scheme is not read."""
        if scheme not in SCHEMES or "::" in url:
            problem, remedy = f"have a URL ({scheme}://) as image that is not read", "download the images"
            self.bad.add(
                f"{where}, {without_secrets(url):.80}", problem, f"{remedy}, and write the paths of their files"
            )
        elif (package := missing_package(scheme)) is not None:
            self.bad.add(f"{where}, {without_secrets(url):.80}", f"have a URL ({scheme}://) as image", package)
        return url

    def _path(self, path: str, where: str) -> str:
        """Return the path of a file, joined to the root, and add it to `bad` if it leads out of the root."""
        if self.root is None:
            problem = "name a file as image, and its folder is not known"
            self.bad.add(f"{where}, {path!r:.80}", problem, "set data.source.image_root to it")
            return path
        if not self.own_root and os.path.isabs(path) and "\0" not in path:  # noqa: PTH117, pathlib takes long
            return path
        if isinstance(self.root, str):
            found = within(URL_ROOT, path)
            joined = None if found is None else self.root.rstrip("/") + found.removeprefix("/root")
        else:
            joined = within(self.root, path)
        if joined is None:
            problem = f"name an image outside of the folder of images, {self.root}"
            remedy = "correct them, or set data.source.image_root to a folder that holds all images"
            self.bad.add(f"{where}, {path!r:.80}", problem, remedy)
        return joined or path


def _text_parts(text: str) -> Iterator[Part]:
    """Yield the images of a cell with a text."""
    if _is_content(text):
        yield _decode(text)
        return
    if text[:2] in ("['", '["'):
        try:
            items = parse_list(text)
        except UnreadableListError:
            items = None
        if items is not None:
            yield from image_parts(items)  # type: ignore[misc]
            return
    if text:
        yield text


def _is_content(text: str) -> bool:
    """Return whether a text is a data URL or base64 text of an image."""
    if text[:5].lower() == "data:" or BASE64.fullmatch(text, endpos=256) or BASE64.fullmatch(text):
        return True
    return len(text) > LONGEST and ANY_BASE64.fullmatch(text) is not None


def _decode(text: str) -> bytes:
    """Return the content of a data URL or base64 text. What is cut off is missing at the end."""
    body = text
    if text[:5].lower() == "data:":
        head, _, body = text.partition(",")
        if not head.rstrip().lower().endswith(";base64"):
            return unquote_to_bytes(body)
    digits = re.sub(r"[^A-Za-z0-9+/]", "", unquote(body).replace("-", "+").replace("_", "/"))
    digits = digits[:-1] if len(digits) % 4 == 1 else digits
    return base64.b64decode(digits + "=" * (-len(digits) % 4))


def _path_in(url: str) -> str | None:
    """Return the path in a ``file://`` URL, or None if it names another machine."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.netloc in ("", "localhost") else None
