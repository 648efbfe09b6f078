"""Conversion of whole columns of image paths and URLs, wherever the row-by-row reader would not refuse any of them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from robusttune.data.sources.files import within
from robusttune.data.sources.image_cells import LONGEST, MAGIC_TEXTS, URL_ROOT, ImageCells
from robusttune.data.sources.text_arrays import UnusualCellsError, Update, filled_texts

# Texts that may be images themselves, lists of images, or are no path: `image_parts` looks at them more closely.
CONTENT = rf"^(?i:data:)|^\[['\"]|^(?:{MAGIC_TEXTS})|\x00|://"
WEB = r"^(?i:https?)://"
ODD_PARTS = r"(?:^|/)\.{0,2}(?:/|$)"  # parts of a path that are empty, `.` or `..`, which `within` resolves


def image_column(cells: pa.Array, column: str, images: ImageCells, updates: list[Update]) -> pa.Array:
    """Return the names of the images of a column with one path or URL in a cell, null where a cell is blank.

    Args:
        cells: Column of any type.
        column: Name of the column.
        images: Conversion of single cells.
        updates: List that is extended by counts of cells that look blank.

    Raises:
        UnusualCellsError: A cell holds something else, or a path that must be resolved or refused.
    """
    texts = pc.utf8_trim_whitespace(filled_texts(cells, column, images.blanks, updates))
    if _any(pc.greater(pc.binary_length(texts), LONGEST)):
        raise UnusualCellsError
    web = pc.match_substring_regex(texts, WEB)
    if _any(web):
        _require_none(pc.and_(web, pc.match_substring(texts, "::")))
        others = pc.if_else(web, pa.scalar(None, pa.string()), texts)
        return pc.if_else(web, texts, _paths(others, images))
    return _paths(texts, images)


def _paths(texts: pa.Array, images: ImageCells) -> pa.Array:
    """Return the paths of image files, joined to the root."""
    _require_none(pc.match_substring_regex(texts, CONTENT))
    if texts.null_count == len(texts):
        return texts
    if images.root is None:
        raise UnusualCellsError
    prefix = _prefix(images.root)
    absolute = pc.starts_with(texts, "/")
    relative = texts
    if _any(absolute):
        if images.own_root:
            if isinstance(images.root, str) or _any(pc.and_(absolute, pc.invert(pc.starts_with(texts, prefix)))):
                raise UnusualCellsError
            relative = pc.if_else(absolute, pc.utf8_slice_codeunits(texts, len(prefix)), texts)
        else:
            relative = pc.if_else(absolute, pa.scalar(None, pa.string()), texts)
    _require_none(pc.match_substring_regex(relative, ODD_PARTS))
    joined = pc.binary_join_element_wise(pa.scalar(prefix), relative, "")
    return joined if images.own_root or relative is texts else pc.if_else(absolute, texts, joined)


def _prefix(root: Path | str) -> str:
    """Return the start of the names of all images in a folder or under a URL."""
    if isinstance(root, str):
        return root.rstrip("/") + (within(URL_ROOT, "x") or "").removeprefix("/root").removesuffix("x")
    return (within(root, "x") or "").removesuffix("x")


def _any(flags: pa.Array) -> bool:
    return bool(flags.true_count)


def _require_none(flags: pa.Array) -> None:
    if _any(flags):
        raise UnusualCellsError
