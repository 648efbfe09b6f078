"""Which icon set an icon is from: the picture shows the style of drawing, the name little."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from experiments.small_tables.icons import HEALTH, MATERIAL, TABLER, drawn, words
from experiments.small_tables.packages import Packages
from experiments.small_tables.rows import Row, SmallTable, sample
from experiments.small_tables.tagged_icons import FONT_AWESOME, PHOSPHOR

EACH = 40
SETS = {  # package, folder of the drawings, and what their names end with
    "Tabler outline": (TABLER, "icons/outline", ""),
    "Tabler filled": (TABLER, "icons/filled", ""),
    "Material": (MATERIAL, "svg", ""),
    "Font Awesome solid": (FONT_AWESOME, "svgs/solid", ""),
    "Phosphor thin": (PHOSPHOR, "assets/thin", "-thin"),
    "Phosphor bold": (PHOSPHOR, "assets/bold", "-bold"),
    "Phosphor fill": (PHOSPHOR, "assets/fill", "-fill"),
    "Phosphor two-tone": (PHOSPHOR, "assets/duotone", "-duotone"),
    "Health outline": (HEALTH, "public/icons/svg/outline", ""),
    "Health filled": (HEALTH, "public/icons/svg/filled", ""),
}


def tables(packages: Packages) -> Iterator[SmallTable]:
    """Yield the table of icon sets, 40 icons of each."""
    rows = []
    for name, (package, folder, ending) in SETS.items():
        rows += sample(style_rows(name, packages(package) / folder, ending), EACH)
    used = tuple(dict.fromkeys(package for package, *_ in SETS.values()))
    yield SmallTable("icon_styles", "icon of one of ten styles, name, style", used, rows)


def style_rows(name: str, folder: Path, ending: str) -> Iterator[Row]:
    """Yield the icons of one style."""
    for path in sorted(folder.rglob("*.svg")):
        icon = path.stem.removesuffix(ending)
        place = "-".join(path.relative_to(folder).with_suffix("").parts)  # an icon may be in two folders
        yield Row(f"{words(name).replace(' ', '-').lower()}-{place}", partial(drawn, path), words(icon), name)
