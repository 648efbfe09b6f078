"""From the image cells of a table to paths of files."""

from __future__ import annotations

import re
from pathlib import Path

from robusttune.data.problems import Problems
from robusttune.data.sources.files import within

URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
# The first bytes of JPEG, PNG, GIF, WebP, BMP and TIFF files in base64.
BASE64 = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-9]|SUkqA|TU0AK)[A-Za-z0-9+/\s]{32,}={0,2}\s*")
LONGEST = 4096  # characters of a path that Linux opens


def image_path(cell: str, where: str, root: Path, own_root: bool, bad: Problems) -> str:
    """Return the path of the file that a cell names.

    Args:
        cell: Text of the cell, not blank.
        where: Place of the row, such as ``line 7``.
        root: Folder that relative paths are relative to.
        own_root: Whether the user has set that folder; then absolute paths that lead out of it are refused too.
        bad: Takes cells that name no file within the folder.
    """
    cell = cell.strip()
    kind = _no_path(cell)
    if kind is not None:
        what, remedy = kind
        bad.add(f"{where}, {cell!r:.60}", what, remedy)
        return cell
    if not own_root and Path(cell).is_absolute() and "\0" not in cell:
        return cell
    path = within(root, cell)
    if path is None:
        what = f"name an image outside of the folder of images, {root}"
        remedy = "correct them, or set data.source.image_root to a folder that holds all images"
        bad.add(f"{where}, {cell!r:.80}", what, remedy)
    return path or cell


def _no_path(cell: str) -> tuple[str, str] | None:
    """What a cell holds that is no path of a file, and what to do about it."""
    url = URL.match(cell)
    if url is not None:
        scheme = url[0].lower()
        if scheme == "file://":
            return f"have a URL ({scheme}) as image", "write paths of files without file://"
        if scheme != "data:":
            return f"have a URL ({scheme}) as image", "download the images, and write the paths of their files"
    if url is not None or len(cell) > LONGEST or BASE64.fullmatch(cell, endpos=256) or BASE64.fullmatch(cell):
        return "hold the bytes of an image as text (base64)", "save each image as a file, and write its path"
    return None
