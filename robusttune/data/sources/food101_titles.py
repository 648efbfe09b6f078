"""A parser of UPMC Food-101's title files, whose rows are not all valid CSV and whose titles contain markup debris."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

LONGEST = 64  # lines of one row at most, which bounds the search for a closing quote that is missing
FIRST_FIELD = re.compile(r'(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>[^",]*)),')
FILE_NAME = re.compile(r"\.\w{2,5}$")


class TitleRow(NamedTuple):
    """A row of a title file.

    Attributes:
        image: File name of the image, without its folder.
        title: Raw title as in the file, or the whole line where the row cannot be parsed.
        label: Class name, or None where the row cannot be parsed.
    """

    image: str
    title: str
    label: str | None


def parse_titles(text: str, images: Collection[str], labels: Collection[str]) -> Iterator[TitleRow]:
    """Parse a title file, and yield each of its rows exactly once.

    A row is `image name, title, class` as CSV without a header. Titles may contain line breaks, stray quotes and quotes
    that never close; a row ends at the latest where the next one begins. A line that belongs to no row is yielded as a
    row without a label, so that the caller can count it.

    Args:
        text: Content of the file, with ``\\n`` as line end.
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
        unparsed = TitleRow("", block[0].strip(), None)
        row, count = _parse_strictly(block) or _parse_leniently(block, labels) or (unparsed, 1)
        yield row
        position += count


def clean_title(title: str) -> str:
    """Convert a raw title to plain text.

    HTML entities are unescaped until none is left, because some were escaped twice. A wrapper ``[["…"]]`` is removed,
    even if only its beginning or its end is left. Runs of white space become one space.

    Example:
        >>> clean_title('[["Mom&amp;#39;s  pie')
        "Mom's pie"
    """
    while (unescaped := html.unescape(title)) != title:
        title = unescaped
    return " ".join(_unwrap(title.strip()).split())


def _starts_row(line: str, images: Collection[str], labels: Collection[str]) -> bool:
    """Return whether a line begins a row: its first field is an image on disk, or it is a complete, valid row."""
    first = FIRST_FIELD.match(line)
    if first is None:
        return False
    name = _name(first)
    if name in images:
        return True
    parsed = _parse_strictly([line])
    return parsed is not None and parsed[0].label in labels and FILE_NAME.search(name) is not None


def _parse_strictly(block: list[str]) -> tuple[TitleRow, int] | None:
    """Return the first row of a block of lines and its number of lines, or None if it is not CSV of three fields."""
    reader = csv.reader((line + "\n" for line in block), strict=True)
    try:
        fields = next(reader)
    except csv.Error:
        return None
    return (TitleRow(*fields), reader.line_num) if len(fields) == 3 else None


def _parse_leniently(block: list[str], labels: Collection[str]) -> tuple[TitleRow, int] | None:
    """Return the same as `_parse_strictly` for invalid CSV, by splitting at the first and the last comma.

    The first split that ends with a known class is the row; None where there is none.
    """
    for count in range(1, len(block) + 1):
        chunk = "\n".join(block[:count])
        first = FIRST_FIELD.match(chunk)
        title, comma, label = chunk[first.end() if first else 0 :].rpartition(",")
        label = label.strip().removeprefix('"').removesuffix('"')
        if first and comma and label in labels:
            return TitleRow(_name(first), _unquote(title), label), count
    return None


def _name(first: re.Match[str]) -> str:
    return first["plain"] if first["quoted"] is None else first["quoted"].replace('""', '"')


def _unquote(field: str) -> str:
    """Remove the quotes around a CSV field, whose closing quote may be missing."""
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
    if quote and not closing:  # the title was truncated within the closing brackets
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
