"""Samples that the page offers to try: from a table, or generated scenes for a model that classifies those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from robusttune.data.images import UnreadableImageError
from robusttune.data.sources import Shapes, Source, Table, World
from robusttune.data.sources.table_files import table_files
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

COUNT = 12
EDGE = 512  # greatest edge length of an example's image, in pixels


@dataclass(frozen=True)
class Example:
    """A sample to try.

    Attributes:
        image: Content of a PNG or JPEG file, or None.
        text: Text, or None.
        labels: Names of the sample's classes; empty if they are not known.
    """

    image: bytes | None
    text: str | None
    labels: list[str]

    @property
    def content_type(self) -> str:
        """Return the media type of the image."""
        return "image/png" if (self.image or b"").startswith(b"\x89PNG") else "image/jpeg"


def load_examples(table: str | Path | None, class_names: Sequence[str]) -> list[Example]:
    """Return examples from a table, or generated scenes if the model classifies scenes.

    Args:
        table: Table with the columns ``image`` and ``text``, and with labels in ``label`` if it has them; or None.
        class_names: Classes of the model.

    Returns:
        Up to `COUNT` examples; none without a table for a model of other classes, since a checkpoint has no data.

    Raises:
        RobustTuneError: The table cannot be read, or none of its rows can be used.
    """
    if table is not None:
        if not all(file.exists() for file in table_files(user_path(table))):
            raise RobustTuneError(f"{table} does not exist: give --examples a table with the columns image and text")
        found = examples_of(Table(predict=str(table)), "predict")
        if not found:
            raise RobustTuneError(f"{table} has no row with an image that can be read or a text: give another table")
        return found
    for world in (World(part="base"), World(part="new"), World(part="all")):
        if {*class_names} == {*world.class_names}:
            return examples_of(Shapes(world=world, test=COUNT), "test")
    return []


def examples_of(source: Source, split: Split) -> list[Example]:
    """Return examples from equal distances of a split, so that a table sorted by class gives several classes.

    Rows without a modality, and those whose image cannot be read, are left out.
    """
    table = source.read(split)
    assert table is not None
    step = max(1, len(table) // COUNT)
    found: list[Example] = []
    for row in table.take(list(range(0, len(table), step))).to_pylist():
        try:
            image = None if row["image"] is None else _content(source, row["image"])
        except UnreadableImageError:
            continue
        if image is not None or row["text"] is not None:
            found.append(Example(image, row["text"], row["labels"] or []))
        if len(found) == COUNT:
            break
    return found


def _content(source: Source, name: str) -> bytes:
    """Return an image as a small PNG or JPEG file. Small images stay exact."""
    image, content = source.images.read(name), BytesIO()
    if max(image.size) <= EDGE // 2:
        image.save(content, "PNG")
        return content.getvalue()
    image.thumbnail((EDGE, EDGE))
    image.save(content, "JPEG", quality=90)
    return content.getvalue()
