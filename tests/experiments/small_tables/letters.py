"""Letters of twelve scripts: the picture shows the script, the name of the letter (without its script) only hints."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from experiments.small_tables.drawing import letter
from experiments.small_tables.packages import Packages
from experiments.small_tables.rows import Row, SmallTable, at_most, frequent

SCRIPTS = {  # first and last code point of the script's main block
    "arabic": (0x0600, 0x06FF),
    "armenian": (0x0530, 0x058F),
    "bengali": (0x0980, 0x09FF),
    "devanagari": (0x0900, 0x097F),
    "georgian": (0x10A0, 0x10FF),
    "hebrew": (0x0590, 0x05FF),
    "kannada": (0x0C80, 0x0CFF),
    "khmer": (0x1780, 0x17FF),
    "malayalam": (0x0D00, 0x0D7F),
    "myanmar": (0x1000, 0x109F),
    "tamil": (0x0B80, 0x0BFF),
    "thai": (0x0E00, 0x0E7F),
}


def tables(packages: Packages) -> Iterator[SmallTable]:
    """Yield the table of letters."""
    used = tuple(f"@fontsource/noto-sans-{script}" for script in SCRIPTS)
    rows = [row for script, name in zip(SCRIPTS, used, strict=True) for row in letter_rows(script, packages(name))]
    yield SmallTable("letters", "letter of one of twelve scripts, name, script", used, at_most(frequent(rows), 40))


def letter_rows(script: str, folder: Path) -> Iterator[Row]:
    """Yield the letters of a script."""
    font = folder / f"files/noto-sans-{script}-{script}-400-normal.woff"
    first, last = SCRIPTS[script]
    for code in range(first, last + 1):
        character = chr(code)
        if unicodedata.category(character).startswith("L"):
            name = unicodedata.name(character).lower().replace(f"{script} ", "")
            yield Row(f"{code:04x}", partial(letter, font, character), name, script)
