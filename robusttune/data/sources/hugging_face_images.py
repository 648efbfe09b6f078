"""The images of data sets that the `datasets` library loads: those in cells, and those that cells name."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from robusttune.data.images import UnreadableImageError, read_image
from robusttune.data.packs import Part
from robusttune.data.remote import Remote
from robusttune.data.sources.image_cells import stored_parts
from robusttune.data.stored_images import StoredImages
from robusttune.types import Split

CELL = re.compile(r"(train|val|test|predict)/([0-9]+)(?:/([0-9]+))?(?:/([0-9]+))?")


class CellImages(StoredImages):
    """A reader of the images of a data set: those in its cells, and those that its cells name.

    Args:
        place: Function from the name of an image in a cell to its location, for messages.
        columns: Names of the image columns.
        cell: Function of a split, a row and a column that returns the cell.
        remote: Settings for images on servers.
    """

    def __init__(
        self, place: Callable[[str], str], columns: list[str], cell: Callable[[str, int, str], Any], remote: Remote
    ) -> None:
        super().__init__(remote)
        self.place = place
        self.columns = columns
        self.cell = cell

    def missing(self, names: Iterable[str | None]) -> list[str]:
        """Return the paths that do not exist, in order; the cells themselves exist."""
        return super().missing(name for name in names if name is not None and not CELL.fullmatch(name))

    def read(self, name: str) -> Image.Image:
        """Return an image as RGB.

        Raises:
            UnreadableImageError: If the image cannot be read.
        """
        part = self._part(name)
        if isinstance(part, str):
            return super().read(part)
        return read_image(io.BytesIO(part), f"the image in {self.place(name)}")

    def content(self, name: str) -> bytes:
        """Return the encoded image."""
        part = self._part(name)
        return super().content(part) if isinstance(part, str) else part

    def digest(self, name: str) -> bytes | None:
        """Return a 16-byte hash of an image in a cell, or None for a file of its own."""
        part = self._part(name)
        if not isinstance(part, str):
            return hashlib.blake2b(part, digest_size=16).digest()
        if part == name:
            return super().digest(part)
        try:  # the cell names a file, which the records do not
            return hashlib.blake2b(super().content(part), digest_size=16).digest()
        except UnreadableImageError:
            return hashlib.blake2b(part.encode(), digest_size=16).digest()

    def _part(self, name: str) -> Part:
        """Return the image in a cell that a name refers to: its content, path or URL. Return other names."""
        found = CELL.fullmatch(name)
        if found is None:
            return name
        cell = self.cell(found[1], int(found[2]), self.columns[int(found[3] or 0)])
        return next(islice(stored_parts(cell), int(found[4] or 0), None), b"")


def row_of(name: str) -> int:
    """Return the row in the name of an embedded image, see `cell_name`.

    Example:
        >>> row_of("val/7/1/2")
        7
    """
    return int(name.split("/")[1])


def cell_name(split: Split, row: int, column: int, item: int) -> str:
    """Return the name of an embedded image.

    Images are named ``<split>/<row>``, those of further image columns ``<split>/<row>/<column>``, and further ones of
    a list ``<split>/<row>/<column>/<item>``.

    Example:
        >>> cell_name("train", 7, 0, 0), cell_name("val", 0, 1, 2)
        ('train/7', 'val/0/1/2')
    """
    numbers = [column, item] if item else [column] if column else []
    return "/".join(map(str, [split, row, *numbers]))


def image_counts(cells: pa.ChunkedArray) -> list[int]:
    """Return the number of embedded images of each cell. No image is decoded."""
    if any(is_list(cells.type) for is_list in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        lengths = pc.fill_null(pc.list_value_length(cells), 0).to_pylist()
        items = iter(image_counts(pc.list_flatten(cells)))
        return [sum(islice(items, length)) for length in lengths]
    present = pc.is_valid(cells)
    if pa.types.is_struct(cells.type):
        parts = [field.name for field in cells.type if field.name in ("bytes", "path")]
        filled = [pc.is_valid(pc.struct_field(cells, part)) for part in parts]
        present = pc.and_(present, filled[0] if len(filled) == 1 else pc.or_(*filled))
    return [int(flag) for flag in present.to_pylist()]
