"""Icon sets and logos with any number of categories or tags, and two kinds of logos that the pictures hardly show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml
from experiments.small_tables.icons import drawn, words
from experiments.small_tables.packages import Packages
from experiments.small_tables.rows import Row, SmallTable, frequent, sample

PHOSPHOR, FONT_AWESOME, DEVICON = "@phosphor-icons/core", "@fortawesome/fontawesome-free", "devicon"
PHOSPHOR_ENTRY = re.compile(r'readonly name: "([\w-]+)";.*?readonly categories: readonly \[(.*?)\]', re.DOTALL)


def tables(packages: Packages) -> Iterator[SmallTable]:
    """Yield three multi-label tables and one with two classes."""
    rows = sample(frequent(phosphor_rows(packages(PHOSPHOR)), 20), 700)
    yield SmallTable("phosphor", "two-tone icon, name, categories", (PHOSPHOR,), frequent(rows))
    rows = frequent(sample(frequent(font_awesome_rows(packages(FONT_AWESOME)), 20), 800))
    yield SmallTable("font_awesome", "solid icon, name and search terms, categories", (FONT_AWESOME,), rows)
    logos = list(logo_rows(packages(DEVICON)))
    rows = frequent(logos, 15)
    yield SmallTable("logo_tags", "logo of a technology, its name, frequent tags", (DEVICON,), rows)
    yield SmallTable("logo_kinds", "logo, name, language or framework", (DEVICON,), list(_kinds(logos)))


def phosphor_rows(folder: Path) -> Iterator[Row]:
    """Yield the icons of Phosphor in two tones."""
    catalogue = (folder / "dist/icons.d.ts").read_text(encoding="utf-8")
    for name, categories in PHOSPHOR_ENTRY.findall(catalogue):
        path = folder / f"assets/duotone/{name}-duotone.svg"
        labels = sorted(category.rsplit(".")[-1].lower() for category in categories.split(", ") if category)
        yield Row(name, partial(drawn, path), words(name), labels)


def font_awesome_rows(folder: Path) -> Iterator[Row]:
    """Yield the solid icons of Font Awesome's free set that are in a category."""
    categories: dict[str, list[str]] = {}
    for category in yaml.safe_load((folder / "metadata/categories.yml").read_text(encoding="utf-8")).values():
        for name in category["icons"]:
            categories.setdefault(name, []).append(category["label"])
    icons = yaml.safe_load((folder / "metadata/icons.yml").read_text(encoding="utf-8"))
    for name, icon in icons.items():
        path = folder / f"svgs/solid/{name}.svg"
        if path.exists() and name in categories:
            text = ", ".join([icon["label"], *map(str, icon["search"]["terms"] or [])])
            yield Row(str(name), partial(drawn, path), text, sorted(categories[name]))


def logo_rows(folder: Path) -> Iterator[Row]:
    """Yield the logos of Devicon with their tags."""
    for logo in json.loads((folder / "devicon.json").read_text(encoding="utf-8")):
        name = logo["name"]
        versions = (folder / f"icons/{name}/{name}-{version}.svg" for version in ("original", "plain"))
        path = next((path for path in versions if path.exists()), None)
        if path is not None:
            text = ", ".join([name, *logo["altnames"]])
            yield Row(name, partial(drawn, path), text, sorted({*logo["tags"]}))


def _kinds(logos: list[Row]) -> Iterator[Row]:
    kinds = {"language", "framework"}
    for row in logos:
        if len(kind := kinds.intersection(row.labels)) == 1:
            yield row._replace(label=kind.pop())
