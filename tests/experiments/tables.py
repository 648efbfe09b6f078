"""Write the tables and pictures of all published results into the pages that show them.

A page has a table between the lines `<!-- table: NAME -->` and `<!-- end -->`. The test in
`tests/test_readme_tables.py` fails when a page or a picture differs from the results.

    make tables
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments import (
    ablations,
    adaptation,
    bayes,
    imbalance,
    methods,
    pictures,
    protocols,
    robustness,
    scale,
    specialists,
    trials,
)
from experiments.records import PUBLISHED, ROOT, Results, load
from experiments.small_tables import summary

PAGES = (
    ROOT / "README.md",
    ROOT / "robusttune/planning/README.md",
    ROOT / "robusttune/protocols/README.md",
    Path(__file__).parent / "README.md",
)
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


class Table(NamedTuple):
    """A table of a page: the name of its results, and the function that makes Markdown of them."""

    study: str
    markdown: Callable[[Results], str]


class Picture(NamedTuple):
    """A picture in `.github/`: the name of its results, and the function that draws them into a file."""

    study: str
    draw: Callable[[Path, str, Results], None]


TABLES = {
    "robustness_demo": Table("robustness_demo", partial(robustness.table, test_set="scenes")),
    "robustness_noto": Table("robustness_emoji", partial(robustness.table, test_set="noto")),
    "robustness_fluent3d": Table("robustness_emoji", partial(robustness.table, test_set="fluent3d")),
    "specialists": Table("specialists", specialists.table),
    "trials": Table("trials", trials.table),
    "bayes": Table("bayes", bayes.table),
    "ablations": Table("ablations", ablations.table),
    "imbalance_demo": Table("imbalance_demo", imbalance.table),
    "imbalance_emoji": Table("imbalance_emoji", imbalance.table),
    **{f"protocol_{name}": Table(f"protocol_{name}", protocols.tables) for name in protocols.MINIATURES},
    "adaptation": Table("adaptation", adaptation.table),
    "methods": Table("methods", methods.table),
    "scale": Table("scale", scale.table),
    "small_tables_suite": Table("small_tables", summary.suite_table),
    "small_tables": Table("small_tables", summary.results_table),
    "small_tables_spread": Table("small_tables", summary.spread_table),
    "small_tables_experts": Table("small_tables_experts", partial(summary.results_table, only="Experts")),
    "small_tables_molt": Table("small_tables_molt", partial(summary.results_table, only="MoLT")),
}
PICTURES = {
    "robustness_demo.png": Picture("robustness_demo", partial(pictures.missing_rates, test_set="scenes")),
    "robustness_emoji_noto.png": Picture("robustness_emoji", partial(pictures.missing_rates, test_set="noto")),
    "robustness_emoji_fluent3d.png": Picture("robustness_emoji", partial(pictures.missing_rates, test_set="fluent3d")),
    "specialists.png": Picture("specialists", pictures.specialists),
}


def studies() -> list[str]:
    """Return the names of all published results."""
    return sorted(path.stem for path in PUBLISHED.glob("*.json"))


def sources() -> str:
    """Return Markdown: the command, date, duration and versions of all published results."""
    lines = ["| results | command | date | minutes | versions |", "| --- | --- | --- | --- | --- |"]
    for study in studies():
        found = load(study)
        versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
        link = f"[{study}](results/{study}.json)"
        lines.append(f"| {link} | `{found.command}` | {found.date} | {found.minutes:.0f} | {versions} |")
    return "\n".join(lines)


def markdown(name: str) -> str:
    """Return the table of this name."""
    if name == "sources":
        return sources()
    return TABLES[name].markdown(load(TABLES[name].study))


def filled(page: str) -> str:
    """Return the page with the tables that the results give."""
    return BLOCK.sub(lambda block: f"{block[1]}{markdown(block[2])}\n{block[3]}", page)


def source_of(study: str) -> str:
    """Return what a picture keeps of the results that it was drawn from: their name and hash."""
    return f"{study}.json sha256 {hashlib.sha256((PUBLISHED / f'{study}.json').read_bytes()).hexdigest()}"


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{page.relative_to(ROOT)} is written")
    for name, picture in PICTURES.items():
        if picture.study in studies():
            picture.draw(ROOT / ".github" / name, source_of(picture.study), load(picture.study))
            print(f".github/{name} is drawn")


if __name__ == "__main__":
    main()
