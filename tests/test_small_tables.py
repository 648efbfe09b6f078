"""The suite of small tables: rows of made-up packages, splits, files, features, the reference and the protocol."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import yaml
from experiments.small_tables import countries, icon_styles, icons, letters, packages, tagged_icons
from experiments.small_tables.features import TableFeatures, descriptions, features
from experiments.small_tables.packages import Pin, fetch, integrity_of
from experiments.small_tables.protocol import PROTOCOL, protocol
from experiments.small_tables.reference import Job, dominance, measure, predictions
from experiments.small_tables.regression import cross_validated, fit_path
from experiments.small_tables.rows import Row, SmallTable, at_most, frequent
from experiments.small_tables.scenes import scene_rows
from experiments.small_tables.scores import best_threshold, constant
from experiments.small_tables.splits import SPLITS, split_rows
from experiments.small_tables.writing import write_table
from PIL import Image
from sklearn.linear_model import LogisticRegression

from robusttune.data.sources import Table
from robusttune.data.sources.shapes import Shapes, World

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


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a suite with one table of 24 scenes, four of them without text."""
    root = tmp_path_factory.mktemp("suite")
    rows = list(scene_rows(Shapes(world=World(classes=2), train=24)))
    rows = [row._replace(text="") if number < 4 else row for number, row in enumerate(rows)]
    write_table(SmallTable("scenes", "scene, caption, shape", (), rows, encoders="demo_clip"), root)
    return root


def test_written_tables_are_read(suite: Path) -> None:
    folder = suite / "scenes"
    found = Table(train=str(folder / "1-train.jsonl"), test=str(folder / "1-test.jsonl"), id_column="id")
    train, test = (found.read(split) for split in ("train", "test"))
    assert train is not None
    assert test is not None
    assert train.num_rows + test.num_rows == 24
    (described,) = descriptions(suite)
    assert (described["rows"], described["classes"], described["task"]) == (24, 2, "multi-class")
    assert described["train_rows"] == train.num_rows
    assert described["without_text"] == pytest.approx(4 / 24, abs=1e-3)


def test_the_reference_answers_every_condition(suite: Path, tmp_path: Path) -> None:
    (described,) = descriptions(suite)
    data = features(suite, described)
    assert data.ids.tolist() == [f"{n:04}" for n in range(24)]
    assert (~data.has_text).nonzero()[0].tolist() == [0, 1, 2, 3]
    assert data.image.std(0).max() > 0
    again = features(suite, described)  # from the file
    assert np.array_equal(data.image, again.image)
    found = measure(tmp_path, suite, Job("scenes", 1))
    assert found.keys() == {"complete", "no_image", "no_text", "constant"}
    with np.load(tmp_path / "predictions/scenes-1.npz") as kept:
        assert kept["complete"].shape == (8, 2)
        accuracy = (kept["no_text"].argmax(1) == kept["label"]).mean()
    assert found["no_text"]["accuracy"] == pytest.approx(accuracy)


def test_a_sample_with_neither_modality_gets_the_frequencies_and_others_their_own_regression() -> None:
    generator = np.random.default_rng(0)
    label = np.array([0, 0, 1] * 20)
    image = (generator.normal(size=(60, 3)) * 0.1 + label[:, None]).astype(np.float32)
    text = generator.normal(size=(60, 2)).astype(np.float32)
    has_text = np.arange(60) % 4 > 0
    data = TableFeatures(np.array([f"{n:02}" for n in range(60)]), image, text, has_text, label)
    train, test = np.arange(45), np.arange(45, 60)
    found = predictions(data, train, test, 2)
    without = ~has_text[test]
    assert found["no_image"][0][without] == pytest.approx(np.tile([2 / 3, 1 / 3], (without.sum(), 1)))
    assert found["complete"][0][without] == pytest.approx(found["no_text"][0][without])
    assert (found["no_text"][0].argmax(1) == label[test]).all()
    assert (found["no_text"][1].argmax(1) == label[train]).all(), "held out"


@pytest.mark.parametrize("classes", [2, 4])
def test_regressions_are_those_of_scikit_learn(classes: int) -> None:
    generator = np.random.default_rng(0)
    label = np.arange(80) % classes
    features = (generator.normal(size=(80, 6)) + generator.normal(size=(classes, 6))[label]).astype(np.float32)
    found = cross_validated(features, label, classes, np.arange(80) // 4 % 3)
    standard = (features - found.standard.centre) / found.standard.scale
    # Two classes have two columns of weights here and one there: the penalty is half as strong on their difference.
    model = LogisticRegression(C=found.strength * (2 if classes == 2 else 1), tol=1e-8, max_iter=1000)
    expected = model.fit(standard, label).predict_proba(standard)
    assert found.probabilities(features, False) == pytest.approx(expected, abs=1e-3)
    assert np.abs(found.held_out - expected).max() > 0.01, "held-out predictions are from other models"


def test_several_labels_are_regressions_of_their_own() -> None:
    import torch

    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 4)).astype(np.float32)
    label = (features[:, :2] + generator.normal(size=(60, 2)) > 0).astype(int)
    (weights,) = fit_path(torch.tensor(features), torch.tensor(label), 2, [0.1])
    for place in (0, 1):
        model = LogisticRegression(C=0.1, tol=1e-8).fit(features, label[:, place])
        assert weights[:-1, place].tolist() == pytest.approx(model.coef_[0].tolist(), abs=1e-3)


def test_thresholds_and_constant_answers() -> None:
    label = np.array([[1, 0], [1, 0], [1, 1], [0, 0]])
    held_out = np.array([[0.3, 0.1], [0.35, 0.1], [0.4, 0.3], [0.1, 0.05]])
    assert 0.1 < best_threshold("f1_micro", held_out, label) <= 0.3
    found = constant(label, label)
    assert found["f1_micro"] == pytest.approx(6 / 8)  # the first class alone
    assert found["f1_macro"] == pytest.approx((6 / 7 + 2 / 5) / 2)
    assert constant(np.array([0, 1, 1]), np.array([1, 0])) == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("complete", "no_image", "no_text", "found"),
    [
        (0.86, 0.83, 0.75, "complementary"),
        (0.9, 0.89, 0.6, "text"),
        (0.9, 0.5, 0.89, "image"),
        (0.9, 0.89, 0.88, "either"),
    ],
)
def test_dominance(complete: float, no_image: float, no_text: float, found: str) -> None:
    assert dominance(complete, no_image, no_text) == found


def test_the_protocol_is_the_one_that_is_written() -> None:
    content = yaml.safe_load(PROTOCOL.read_text(encoding="utf-8"))
    tables = content["axes"]["dataset"]
    assert len(tables) >= 12
    described = [
        {
            "name": name,
            "encoders": Path(table["configs"][1]).stem,
            "task": "multi-label" if "settings" in table else "multi-class",
        }
        for name, table in tables.items()
    ]
    assert PROTOCOL.read_text(encoding="utf-8") == protocol(described)
    combined = {(one["where"]["dataset"], one["where"]["seed"]) for one in content["combinations"]}
    assert combined == {(name, split) for name in tables for split in SPLITS}
