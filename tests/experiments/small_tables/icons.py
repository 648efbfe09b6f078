"""Icon sets with one category an icon: many or few classes, balanced and long-tailed, names or other words as texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import yaml
from experiments.small_tables.drawing import icon_park_svg, rasterise
from experiments.small_tables.packages import Packages
from experiments.small_tables.rows import Row, SmallTable, at_most, frequent, sample

TABLER, MATERIAL, ICON_PARK = "@tabler/icons", "@mdi/svg", "@icon-park/svg"
CARBON, HEALTH = "@carbon/pictograms", "healthicons"


def tables(packages: Packages) -> Iterator[SmallTable]:
    """Yield a table of each icon set."""
    rows = frequent(sample(tabler_rows(packages(TABLER)), 1200))
    yield SmallTable("tabler", "outline icon, name, category", (TABLER,), rows)
    rows = at_most(frequent(material_rows(packages(MATERIAL)), 24, 25), 24)
    yield SmallTable("material", "filled icon, other names (missing for many), category", (MATERIAL,), rows)
    rows = frequent(sample(icon_park_rows(packages(ICON_PARK)), 800))
    yield SmallTable("icon_park", "icon in four colours, name, category", (ICON_PARK,), rows)
    rows = frequent(sample(carbon_rows(packages(CARBON)), 800))
    yield SmallTable("pictograms", "pictogram, name and other words, category", (CARBON,), rows)
    yield SmallTable("health", "filled icon, title, category", (HEALTH,), frequent(health_rows(packages(HEALTH))))


def words(name: str) -> str:
    """Return a name in a package as words.

    Example:
        >>> words("arrow-big--down_line")
        'arrow big down line'
    """
    return " ".join(name.replace("_", " ").replace("-", " ").split())


def drawn(path: Path) -> bytes:
    """Return the picture of an SVG file."""
    return rasterise(path.read_text(encoding="utf-8"))


def tabler_rows(folder: Path) -> Iterator[Row]:
    """Yield the outline icons of Tabler. Brands are left out, and so are letters and digits, which name themselves."""
    icons = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    for name, icon in sorted(icons.items()):
        path = folder / f"icons/outline/{name}.svg"
        if path.exists() and icon["category"] not in ("", "Brand", "Letters", "Numbers"):
            yield Row(name, partial(drawn, path), words(name), icon["category"])


def material_rows(folder: Path) -> Iterator[Row]:
    """Yield the icons of Material Design that have exactly one tag; the text is empty where there is no other name."""
    for icon in json.loads((folder / "meta.json").read_text(encoding="utf-8")):
        name = icon["name"]
        if len(icon["tags"]) == 1 and not icon["deprecated"]:
            text = ", ".join(map(words, icon["aliases"]))
            yield Row(name, partial(drawn, folder / f"svg/{name}.svg"), text, icon["tags"][0])


def icon_park_rows(folder: Path) -> Iterator[Row]:
    """Yield the icons of IconPark, which are scripts."""
    paths = {path.stem.lower(): path for path in (folder / "es/icons").glob("*.js")}
    for icon in json.loads((folder / "icons.json").read_text(encoding="utf-8")):
        path = paths.get(icon["name"].replace("-", "").lower())
        if path is not None and icon["category"] not in ("Others", "Base"):
            yield Row(icon["name"], partial(_icon_park, path), words(icon["name"]), icon["category"])


def _icon_park(path: Path) -> bytes:
    return rasterise(icon_park_svg(path.read_text(encoding="utf-8")))


def carbon_rows(folder: Path) -> Iterator[Row]:
    """Yield the pictograms of Carbon that are in one category."""
    pictograms = yaml.safe_load((folder / "pictograms.yml").read_text(encoding="utf-8"))
    categories: dict[str, list[str]] = {}
    for category in yaml.safe_load((folder / "categories.yml").read_text(encoding="utf-8"))["categories"]:
        for name in category["members"]:
            categories.setdefault(name, []).append(category["name"])
    for one in pictograms:
        path = folder / f"src/svg/{one['name']}.svg"
        if path.exists() and len(categories.get(one["name"], [])) == 1:
            text = ", ".join(dict.fromkeys([one["friendly_name"], *map(str, one.get("aliases") or [])]))
            yield Row(one["name"], partial(drawn, path), text, categories[one["name"]][0])


def health_rows(folder: Path) -> Iterator[Row]:
    """Yield the filled icons of Health Icons."""
    icons = folder / "public/icons"
    for icon in json.loads((icons / "meta-data.json").read_text(encoding="utf-8")):
        path = icons / f"svg/filled/{icon['path']}.svg"
        if path.exists():
            yield Row(icon["path"].replace("/", "-"), partial(drawn, path), icon["title"], icon["category"])
