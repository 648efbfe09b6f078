"""Read UPMC Food-101's title files: rows that a plain CSV reader would merge or lose, and titles with markup debris."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

LONGEST = 64  # lines of one row; bounds the search for the end of a quote that never closes
FIRST_FIELD = re.compile(r'(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^",]*)),')
FILE_NAME = re.compile(r"\.\w{2,5}$")


class TitleRow(NamedTuple):
    """A row of a title file.

    Attributes:
        image: File name of the image, without its folder.
        title: Title as it stands in the file, or the whole line where the row cannot be understood.
        label: Class name, or None where the row cannot be understood.
    """

    image: str
    title: str
    label: str | None


def parse_titles(text: str, images: Collection[str], labels: Collection[str]) -> Iterator[TitleRow]:
    """Yield the rows of a title file, each exactly once, whatever its images are called.

    A row is `image name, title, class` as CSV without a header. Titles may hold line breaks, stray quotes and quotes
    that never close; a row ends at the latest where the next one begins. A line that belongs to no row is yielded as a
    row without a label, so nothing in the file passes unnoticed.

    Args:
        text: Content of the file, with ``\\n`` line ends.
        images: File names of the images on disk.
        labels: Class names.

    Example:
        >>> list(parse_titles('a.jpg,"An open quote,soup', ["a.jpg"], ["soup"]))
        [TitleRow(image='a.jpg', title='An open quote', label='soup')]
    """
    lines = text.split("\n")
    position = 0
    while position < len(lines):
        if not lines[position].strip():
            position += 1
            continue
        end = position + 1
        while end < min(len(lines), position + LONGEST) and not _starts_row(lines[end], images, labels):
            end += 1
        block = lines[position:end]
        row, used = _strict(block) or _lenient(block, labels) or (TitleRow("", block[0].strip(), None), 1)
        yield row
        position += used


def clean_title(title: str) -> str:
    """Return a title as plain text.

    Entities are unescaped until none is left (some were escaped twice), a wrapper ``[["…"]]`` is removed, also where
    only its beginning or its end is left, and runs of white space become one space.

    Example:
        >>> clean_title('[["Mom&amp;#39;s  pie')
        "Mom's pie"
    """
    while (unescaped := html.unescape(title)) != title:
        title = unescaped
    return " ".join(_unwrap(title.strip()).split())


def _starts_row(line: str, images: Collection[str], labels: Collection[str]) -> bool:
    """Whether a line begins a row: with an image on disk, or as a whole row of a known class."""
    first = FIRST_FIELD.match(line)
    if first is None:
        return False
    name = _name(first)
    if name in images:
        return True
    whole = _strict([line])
    return whole is not None and whole[0].label in labels and FILE_NAME.search(name) is not None


def _strict(block: list[str]) -> tuple[TitleRow, int] | None:
    """The row with which a block of lines begins, and its number of lines, where it is CSV of three fields."""
    reader = csv.reader((line + "\n" for line in block), strict=True)
    try:
        fields = next(reader)
    except csv.Error:
        return None
    return (TitleRow(*fields), reader.line_num) if len(fields) == 3 else None


def _lenient(block: list[str], labels: Collection[str]) -> tuple[TitleRow, int] | None:
    """The same where quotes or commas are not as CSV has them: the first and the last comma divide the fields."""
    for used in range(1, len(block) + 1):
        chunk = "\n".join(block[:used])
        first = FIRST_FIELD.match(chunk)
        title, comma, label = chunk[first.end() if first else 0 :].rpartition(",")
        label = label.strip().removeprefix('"').removesuffix('"')
        if first and comma and label in labels:
            return TitleRow(_name(first), _unquote(title), label), used
    return None


def _name(first: re.Match[str]) -> str:
    return first["plain"] if first["quoted"] is None else first["quoted"].replace('""', '"')


def _unquote(field: str) -> str:
    """A CSV field without its quotes, of which the closing one may be missing."""
    if not field.startswith('"'):
        return field
    return field.removeprefix('"').removesuffix('"').replace('""', '"')


def _unwrap(title: str) -> str:
    if not (title.startswith("[[") or title.endswith("]]")):
        return title
    try:
        return " ".join(_strings(json.loads(title)))
    except (ValueError, RecursionError):
        pass
    opening = re.match(r"""\[\[\s*(["']?)""", title)
    closing = re.search(r"""(["']?)\s*\]\]$""", title)
    inner = title[opening.end() if opening else 0 : closing.start() if closing else len(title)]
    quote = (opening or closing)[1]  # type: ignore[index]
    if quote and not closing:  # which was cut within the wrapper's end
        inner = re.sub(rf"{quote}\s*\]?$", "", inner)
    if quote and not opening:
        inner = re.sub(rf"^\[?\s*{quote}", "", inner)
    return inner


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _strings(part)
    else:
        yield str(value)
