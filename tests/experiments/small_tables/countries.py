"""Flags of countries with their capital: which continent, and which languages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from experiments.small_tables.icons import drawn
from experiments.small_tables.packages import Packages
from experiments.small_tables.rows import Row, SmallTable, frequent

FLAGS, COUNTRIES = "flag-icons", "countries-list"


def tables(packages: Packages) -> Iterator[SmallTable]:
    """Yield a table with the continent as label, and a multi-label one with frequent languages."""
    used = (FLAGS, COUNTRIES)
    rows = list(flag_rows(packages))
    by_continent = frequent(row._replace(label=row.labels[0]) for row in rows)
    yield SmallTable("continents", "flag, capital, continent", used, by_continent)
    by_language = [row._replace(label=row.labels[1:]) for row in rows if row.labels[1:]]
    yield SmallTable("languages", "flag, capital, frequent languages", used, frequent(by_language))


def flag_rows(packages: Packages) -> Iterator[Row]:
    """Yield the flags of countries with a capital; the labels are the continent and then the languages."""
    listed = packages(COUNTRIES)
    countries = json.loads((listed / "countries.min.json").read_text(encoding="utf-8"))
    continents = json.loads((listed / "continents.min.json").read_text(encoding="utf-8"))
    languages = json.loads((listed / "languages.min.json").read_text(encoding="utf-8"))
    for code, country in sorted(countries.items()):
        path = packages(FLAGS) / f"flags/4x3/{code.lower()}.svg"
        if path.exists() and country["capital"]:
            spoken = [languages[language]["name"] for language in country["languages"]]
            labels = [continents[country["continent"]], *spoken]
            yield Row(f"flag-{code.lower()}", partial(drawn, path), country["capital"], labels)
