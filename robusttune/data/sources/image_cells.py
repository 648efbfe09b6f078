"""Conversion of the image cells of a table to file paths."""

from __future__ import annotations

import re
from pathlib import Path

from robusttune.data.problems import Problems
from robusttune.data.sources.files import within

URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
# The first bytes of JPEG, PNG, GIF, WebP, BMP and TIFF files in base64.
BASE64 = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-9]|SUkqA|TU0AK)[A-Za-z0-9+/\s]{32,}={0,2}\s*")
LONGEST = 4096  # characters; Linux opens no longer path


def image_path(cell: str, where: str, root: Path, own_root: bool, bad: Problems) -> str:
    """Return the path of the image file that a cell names.

    URLs, base64 data and paths outside ``root`` are added to ``bad``. Absolute paths are allowed anywhere if the user
    has not set ``root``. The function does not check whether the file exists.

    Args:
        cell: Text of the cell, not blank.
        where: Location of the row for messages, such as ``line 7``.
        root: Folder that relative paths are relative to.
        own_root: Flag, True if the user has set ``root``; then absolute paths outside it are refused, too.
        bad: Collection of problems, to be extended.

    Returns:
        Path of the file, or the cell's text if it has a problem.

    Example:
        >>> bad = Problems("a.csv", "rows")
        >>> image_path("img/1.jpg", "line 2", Path("/data"), False, bad), len(bad)
        ('/data/img/1.jpg', 0)
    """
    cell = cell.strip()
    problem = _problem_of(cell)
    if problem is not None:
        description, remedy = problem
        bad.add(f"{where}, {cell!r:.60}", description, remedy)
        return cell
    if not own_root and Path(cell).is_absolute() and "\0" not in cell:
        return cell
    path = within(root, cell)
    if path is None:
        description = f"name an image outside of the folder of images, {root}"
        remedy = "correct them, or set data.source.image_root to a folder that holds all images"
        bad.add(f"{where}, {cell!r:.80}", description, remedy)
    return path or cell


def _problem_of(cell: str) -> tuple[str, str] | None:
    """Return the problem of a cell that holds a URL or base64 data, and its remedy; None for paths."""
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
