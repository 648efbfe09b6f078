"""The suite of small tables: rows of made-up packages, and their splits."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from experiments.small_tables import countries, icon_styles, icons, letters, packages, tagged_icons
from experiments.small_tables.packages import Pin, fetch, integrity_of
from experiments.small_tables.rows import Row, SmallTable, at_most, frequent
from experiments.small_tables.splits import SPLITS, split_rows
from PIL import Image

SQUARE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><path fill="{}" d="M0 0h4v8H0z"/></svg>'
ICON_PARK = """import { IconWrapper } from '../runtime';
export default IconWrapper('return-key', function (props) {
  return '<svg width="' + props.size + '" viewBox="0 0 48 48" xmlns="http://www.w3.org/2000/svg">' + '<path d="M0 0H24V48H0Z" fill="' + props.colors[1] + '" stroke-width="' + props.strokeWidth + '"/>' + '</svg>';
});"""  # noqa: E501


def put(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def tabler(folder: Path) -> list[Row]:
    named = {"arrow-left": "Arrows", "brand-x": "Brand", "gone": "Arrows"}
    put(folder / "icons.json", {name: {"category": category} for name, category in named.items()})
    put(folder / "icons/outline/arrow-left.svg", SQUARE.format("currentColor"))
    put(folder / "icons/outline/brand-x.svg", SQUARE.format("red"))
    return list(icons.tabler_rows(folder))


def material(folder: Path) -> list[Row]:
    one = {"name": "abugida", "aliases": ["writing-system"], "tags": ["Alpha"], "deprecated": False}
    others = [{**one, "name": "b", "tags": ["Alpha", "Other"]}, {**one, "name": "c", "deprecated": True}]
    put(folder / "meta.json", [one, {**one, "name": "bare", "aliases": []}, *others])
    for name in ("abugida", "bare"):
        put(folder / f"svg/{name}.svg", SQUARE.format("currentColor"))
    return list(icons.material_rows(folder))


def icon_park(folder: Path) -> list[Row]:
    put(folder / "icons.json", [{"name": "return-key", "category": "Arrows"}, {"name": "gone", "category": "Arrows"}])
    put(folder / "es/icons/ReturnKey.js", ICON_PARK)
    return list(icons.icon_park_rows(folder))


def carbon(folder: Path) -> list[Row]:
    put(
        folder / "pictograms.yml",
        "- {name: a--b, friendly_name: A b, aliases: [see, 7]}\n- {name: c, friendly_name: C}",
    )
    put(
        folder / "categories.yml",
        {"categories": [{"name": "X", "members": ["a--b", "c"]}, {"name": "Y", "members": ["c"]}]},
    )
    for name in ("a--b", "c"):
        put(folder / f"src/svg/{name}.svg", SQUARE.format("black"))
    return list(icons.carbon_rows(folder))


def health(folder: Path) -> list[Row]:
    icon = {"path": "vehicles/clinic", "title": "Mobile Clinic", "category": "vehicles"}
    put(folder / "public/icons/meta-data.json", [icon])
    put(folder / "public/icons/svg/filled/vehicles/clinic.svg", SQUARE.format("black"))
    return list(icons.health_rows(folder))


def phosphor(folder: Path) -> list[Row]:
    entry = 'readonly name: "{}";\n readonly categories: readonly [{}];\n'
    listed = entry.format("air-port", "IconCategory.MAP, IconCategory.FINANCE") + entry.format("plain", "")
    put(folder / "dist/icons.d.ts", listed)
    for name in ("air-port", "plain"):
        put(folder / f"assets/duotone/{name}-duotone.svg", SQUARE.format("currentColor"))
    return list(tagged_icons.phosphor_rows(folder))


def font_awesome(folder: Path) -> list[Row]:
    icon = {"label": "Arrow Up", "search": {"terms": ["north", 7]}}
    bare = {"label": "None", "search": {"terms": None}}
    put(folder / "metadata/icons.yml", {"arrow-up": icon, "none": bare, "brand": bare})
    both = {"label": "Arrows", "icons": ["arrow-up"]}
    put(folder / "metadata/categories.yml", {"a": both, "m": {"label": "Maps", "icons": ["arrow-up", "brand"]}})
    for name in ("arrow-up", "none"):
        put(folder / f"svgs/solid/{name}.svg", SQUARE.format("currentColor"))
    return list(tagged_icons.font_awesome_rows(folder))


def logos(folder: Path) -> list[Row]:
    logo = {"name": "rust", "altnames": ["rs"], "tags": ["language", "compiled"]}
    put(folder / "devicon.json", [logo, {**logo, "name": "gone"}])
    put(folder / "icons/rust/rust-plain.svg", SQUARE.format("brown"))
    return list(tagged_icons.logo_rows(folder))


def flags(folder: Path) -> list[Row]:
    country = {"capital": "Windhoek", "continent": "AF", "languages": ["en", "af"]}
    put(folder / "countries.min.json", {"NA": country, "AQ": {**country, "capital": ""}})
    put(folder / "continents.min.json", {"AF": "Africa"})
    put(folder / "languages.min.json", {"en": {"name": "English"}, "af": {"name": "Afrikaans"}})
    for code in ("na", "aq"):
        put(folder / f"flags/4x3/{code}.svg", SQUARE.format("blue"))
    return list(countries.flag_rows(lambda _: folder))


BUILDERS: dict[Callable[[Path], list[Row]], list[tuple[str, str, str | list[str]]]] = {
    tabler: [("arrow-left", "arrow left", "Arrows")],
    material: [("abugida", "writing system", "Alpha"), ("bare", "", "Alpha")],
    icon_park: [("return-key", "return key", "Arrows")],
    carbon: [("a--b", "A b, see, 7", "X")],
    health: [("vehicles-clinic", "Mobile Clinic", "vehicles")],
    phosphor: [("air-port", "air port", ["finance", "map"]), ("plain", "plain", [])],
    font_awesome: [("arrow-up", "Arrow Up, north, 7", ["Arrows", "Maps"])],
    logos: [("rust", "rust, rs", ["compiled", "language"])],
    flags: [("flag-na", "Windhoek", ["Africa", "English", "Afrikaans"])],
}


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_rows_of_a_package(build: Callable[[Path], list[Row]], tmp_path: Path) -> None:
    rows = build(tmp_path)
    assert [(row.id, row.text, row.label) for row in rows] == BUILDERS[build]
    with Image.open(io.BytesIO(rows[0].image())) as image:
        assert image.size == (128, 128)
        assert image.getpixel((100, 64)) == (255, 255, 255), "the right half of the drawing is empty"
        assert image.getpixel((30, 64)) != (255, 255, 255)


def test_letters_are_drawn_and_named_without_their_script(tmp_path: Path) -> None:
    font = tmp_path / "files/noto-sans-georgian-georgian-400-normal.woff"
    font.parent.mkdir()
    shutil.copyfile(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", font)
    rows = {row.id: row for row in letters.letter_rows("georgian", tmp_path)}
    assert (rows["10d0"].text, rows["10d0"].label) == ("letter an", "georgian")
    assert rows["10d0"].image() != rows["10d1"].image()


def archive(path: Path, content: str) -> Path:
    with tarfile.open(path, "w:gz") as file:
        info = tarfile.TarInfo("package/icons.json")
        info.size = len(content)
        file.addfile(info, io.BytesIO(content.encode()))
    return path


def test_only_the_pinned_archive_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "tabler-icons-1.0.0.tgz", "{}")
    pin = Pin("1.0.0", "MIT", integrity_of(path))
    monkeypatch.setattr(packages, "pins", lambda: {"@tabler/icons": pin})
    assert (fetch("@tabler/icons", tmp_path, tmp_path / "unpacked") / "icons.json").read_text() == "{}"
    archive(path, "[]")
    with pytest.raises(SystemExit, match=r"tabler-icons-1\.0\.0\.tgz has the checksum sha512-"):
        fetch("@tabler/icons", tmp_path, tmp_path / "again")


def rows_of(sizes: dict[str, int]) -> list[Row]:
    names = [label for label, size in sizes.items() for _ in range(size)]
    return [Row(f"{n:03}", bytes, f"text {n}", label) for n, label in enumerate(names)]


def test_every_row_is_tested_once_in_stratified_splits() -> None:
    table = SmallTable("t", "", (), rows_of({"a": 30, "b": 9, "c": 6}))
    tested = []
    for split in SPLITS:
        train, test = split_rows(table, split)
        assert not {row.id for row in train} & {row.id for row in test}
        assert Counter(row.label for row in test) == {"a": 10, "b": 3, "c": 2}
        assert len(train) + len(test) == 45
        tested += [row.id for row in test]
    assert sorted(tested) == [row.id for row in table.rows]
    backwards = SmallTable("t", "", (), table.rows[::-1])
    assert {row.id for row in split_rows(backwards, 1)[1]} == {row.id for row in split_rows(table, 1)[1]}


def test_a_few_rows_of_each_class_are_trained_on() -> None:
    table = SmallTable("t", "", (), rows_of({"a": 30, "b": 9}), per_class=4)
    train, test = split_rows(table, 2)
    assert Counter(row.label for row in train) == {"a": 4, "b": 4}
    assert len(test) == 13


def test_rare_classes_of_several_are_in_every_split() -> None:
    rows = [Row(f"{n:03}", bytes, "", ["common", "rare"] if n % 10 == 0 else ["common"]) for n in range(60)]
    table = SmallTable("t", "", (), rows)
    assert [sum("rare" in row.labels for row in split_rows(table, split)[1]) for split in SPLITS] == [2, 2, 2]


def test_rare_classes_are_removed_and_large_ones_cut() -> None:
    rows = rows_of({"a": 30, "b": 9, "c": 5})
    assert Counter(row.label for row in frequent(rows)) == {"a": 30, "b": 9}
    assert Counter(row.label for row in frequent(rows, most_classes=1)) == {"a": 30}
    assert Counter(row.label for row in at_most(rows, 7)) == {"a": 7, "b": 7, "c": 5}
    several = [Row(str(n), bytes, "", ["a", "b"] if n else ["b", "c"]) for n in range(6)]
    assert [row.label for row in frequent(several, 5)] == [["b"]] + [["a", "b"]] * 5


def test_ids_of_icons_in_two_folders_differ(tmp_path: Path) -> None:
    for folder in ("conditions", "symptoms"):
        put(tmp_path / folder / "fever.svg", SQUARE.format("black"))
    rows = list(icon_styles.style_rows("Health filled", tmp_path, ""))
    assert [(row.id, row.text, row.label) for row in rows] == [
        ("health-filled-conditions-fever", "fever", "Health filled"),
        ("health-filled-symptoms-fever", "fever", "Health filled"),
    ]
