"""Write the tables and images of the emoji studies from three npm packages, of which nothing is part of this project.

Image: the emoji in one of two drawing styles, Noto (Google) and Fluent 3D (Microsoft). Text: its short name in CLDR.
Label: its Unicode group; flags, skin tones and other components are left out. The split is a function of the emoji's
code points, so that both styles agree and no emoji is in two splits.

    make emoji-data DATA=emoji
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = {"emojibase-data": "17.0.0", "emoji-datasource-google": "16.0.0", "@lobehub/fluent-emoji-3d": "1.1.0"}
NAMES, *_ = PACKAGES
IMAGES = {  # package and path of the image of code points
    "noto": ("emoji-datasource-google", "img/google/64/{}.png"),
    "fluent3d": ("@lobehub/fluent-emoji-3d", "assets/{}.webp"),
}
LEFT_OUT = {"component", "flags"}
SHARES = {"test": 30, "val": 10, "train": 60}  # percent


def pack(package: str, version: str, folder: Path) -> Path:
    """Download the archive of a package from the npm registry, which checks its hash."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit(f"npm is not found: install Node.js, or put the archive of {package} {version} into {folder}")
    command = [npm, "pack", "--silent", f"{package}@{version}"]
    return folder / subprocess.check_output(command, cwd=folder, text=True).strip()


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive of npm and return the folder with the content of the package."""
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / "package"


def emoji_rows(names: Path) -> Iterator[dict[str, Any]]:
    """Yield code points, text, keywords, label and subgroup of each emoji, in Unicode's order."""
    groups = json.loads((names / "meta/groups.json").read_text(encoding="utf-8"))
    entries = json.loads((names / "en/data.json").read_text(encoding="utf-8"))
    for entry in sorted((e for e in entries if "group" in e), key=lambda entry: entry["order"]):
        group = groups["groups"][str(entry["group"])]
        if group not in LEFT_OUT:
            yield {
                "code": entry["hexcode"],
                "text": entry["label"],
                "keywords": entry.get("tags", []),
                "label": group,
                "subgroup": groups["subgroups"][str(entry["subgroup"])],
            }


def plain(code: str) -> str:
    """Return code points without the variation selector, by which packages differ."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def split_of(code: str) -> str:
    """Return the split of an emoji."""
    number = int(hashlib.blake2b(f"split {code}".encode(), digest_size=4).hexdigest(), 16) % 100
    for split, share in SHARES.items():
        if number < share:
            return split
        number -= share
    raise AssertionError("the shares add up to 100")


def write_style(style: str, rows: list[dict[str, Any]], images: Path, pattern: str, out: Path) -> dict[str, int]:
    """Copy the images of a style and write its tables; return the number of rows by split."""
    available = {plain(path.stem): path for path in sorted((images / pattern).parent.iterdir())}
    tables: dict[str, list[dict[str, Any]]] = {split: [] for split in ("train", "val", "test")}
    (out / "images" / style).mkdir(parents=True, exist_ok=True)
    for row in rows:
        code = plain(row["code"])
        if code in available:
            image = Path("images", style, available[code].name.lower())
            shutil.copyfile(available[code], out / image)
            rest = {name: value for name, value in row.items() if name != "code"}
            tables[split_of(code)].append({"id": f"{style}/{code}", "image": str(image), **rest})
    for split, chosen in tables.items():
        (out / f"{style}_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return {split: len(chosen) for split, chosen in tables.items()}


def write_emoji(packages: dict[str, Path], out: Path) -> dict[str, dict[str, int]]:
    """Write all tables; return the number of rows by style and split."""
    rows = list(emoji_rows(packages[NAMES]))
    counts = {s: write_style(s, rows, packages[name], pattern, out) for s, (name, pattern) in IMAGES.items()}
    (out / "packages.json").write_text(json.dumps(PACKAGES) + "\n")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the tables and images, 20 MB")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        packages = {name: unpack(pack(name, version, folder), folder / name) for name, version in PACKAGES.items()}
        counts = write_emoji(packages, given.out)
    for style, by_split in counts.items():
        print(f"{style}: " + ", ".join(f"{count:,} {split}" for split, count in by_split.items()))


if __name__ == "__main__":
    main()
