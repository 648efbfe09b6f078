"""UPMC Food-101: a photo and the title of the web page that it was found on; 101 dishes."""

from __future__ import annotations

import html
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from robusttune.data.problems import Problems
from robusttune.data.sources.base import Published, Record, Source, or_absent, require, to_table
from robusttune.data.sources.files import class_folders, read_text, unchanged
from robusttune.errors import RobustTuneError
from robusttune.paths import user_path
from robusttune.types import Split

log = logging.getLogger(__name__)

# Rows are told apart by how they begin: titles may hold line breaks, and one quote in the training file never
# closes, after which a CSV reader swallows the rows that follow.
ROW_START = re.compile(r'^"?(?P<image>(?P<label>[^",\n/\\]+)_\d+\.\w{3,4})"?,', re.MULTILINE)


class TitleRow(NamedTuple):
    """A row of a title file; what could not be understood has no label."""

    image: str
    title: str
    label: str | None


@dataclass(frozen=True)
class Food101(Source):
    """UPMC Food-101 as it is distributed.

    ``images/{train,test}/<class>/<class>_<n>.jpg`` and ``texts/{train,test}_titles.csv`` (no header: image name,
    title, class). There is no validation split. Rows that cannot be understood, whose image does not exist, or that
    name an image again are left out, and counted in a warning.

    Args:
        root: the folder that holds ``images`` and ``texts``.
    """

    root: str
    # Rows, of which good copies lack some images.
    published = Published({"train": 67_970, "test": 22_716}, classes=101, within=0.01)

    def __post_init__(self) -> None:
        hint = "set data.source.root to the folder of UPMC Food-101 that holds images/ and texts/"
        require(folders=(self.folder / "images" / split for split in ("train", "test")), hint=hint)
        require(*(self.folder / "texts" / f"{split}_titles.csv" for split in ("train", "test")), hint=hint)

    @property
    def folder(self) -> Path:
        return user_path(self.root)

    def read(self, split: Split) -> pa.Table | None:
        if split not in ("train", "test"):
            return None
        titles, images = self.folder / "texts" / f"{split}_titles.csv", self.folder / "images" / split
        rows = parse_titles(read_text(titles))
        on_disk = _image_files(images)
        left_out = Problems(titles, "rows")
        records: dict[str, Record] = {}
        for row in rows:
            if row.label is None:
                left_out.add(row.title, "cannot be understood")
            elif f"{row.label}/{row.image}" not in on_disk:
                left_out.add(row.image, "name no image there is")
            elif row.image in records:
                left_out.add(row.image, "repeat an image")
            else:
                path = images / row.label / row.image
                records[row.image] = Record(row.image, str(path), or_absent(clean_title(row.title)), [row.label])
        if left_out:
            log.warning("%s: they are left out", left_out.counts(len(rows)))
        if not records:
            raise RobustTuneError(f"{titles} has no row that can be used: give the title file of UPMC Food-101")
        return to_table(records.values())


def parse_titles(text: str) -> list[TitleRow]:
    """The rows of a title file, in order. Whatever belongs to no row comes out as a row without a label."""
    starts = list(ROW_START.finditer(text))
    bounds = [start.start() for start in starts] + [len(text)]
    rows = [_unknown(text[: bounds[0]])]
    for start, end in zip(starts, bounds[1:], strict=True):
        rest, label = text[start.end() : end], start["label"]
        close = re.search(rf',"?{re.escape(label)}"?[ \t]*(\n|\Z)', rest)
        if close is None:
            rows.append(_unknown(text[start.start() : end]))
        else:
            rows.append(TitleRow(start["image"], _unquote(rest[: close.start()]), label))
            rows.append(_unknown(rest[close.end() :]))
    return [row for row in rows if row.label is not None or row.title]


def clean_title(title: str) -> str:
    """Entities unescaped until none is left (some were escaped twice), ``[["…"]]`` unwrapped, spaces single."""
    while (unescaped := html.unescape(title)) != title:
        title = unescaped
    wrapped = re.fullmatch(r"""\s*\[\[(["'])(.*)\1\]\]\s*""", title, re.DOTALL)
    return " ".join((wrapped[2] if wrapped else title).split())


def _unknown(text: str) -> TitleRow:
    return TitleRow("", text.strip(), None)


def _unquote(field: str) -> str:
    """A CSV field without its quotes, of which the closing one may be missing."""
    if not field.startswith('"'):
        return field
    return field.removeprefix('"').removesuffix('"').replace('""', '"')


def _image_files(folder: Path) -> set[str]:
    """``<class>/<file>`` for everything in the class folders."""
    names = set()
    for label in class_folders(folder):
        with unchanged(folder / label):
            names |= {f"{label}/{image}" for image in os.listdir(folder / label)}  # noqa: PTH208
    return names
