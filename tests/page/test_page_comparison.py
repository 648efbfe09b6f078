"""Predictions under the conditions of the page, and the samples that it offers."""

from __future__ import annotations

import csv
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import write_image
from PIL import Image

from robusttune.data.sources import Shapes, World
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.errors import RobustTuneError
from robusttune.inference import Prediction, Predictor
from robusttune.models.zero_shot import ZeroShotClassifier
from robusttune.page.comparison import TOP, compare, summarise
from robusttune.page.examples import COUNT, load_examples
from robusttune.page.sample import Sample
from robusttune.types import Facts

CLIP: dict[str, Any] = {"name": "robusttune:demo_clip", "first_layer": 2}
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
TEXT = "a red circle"


@pytest.fixture(scope="module")
def model() -> Predictor:
    facts = Facts(["red circle", "blue square", "pink star"], [0.5, 0.3, 0.2], multilabel=False)
    return Predictor([ZeroShotClassifier(CLIPImageEncoder(**CLIP), CLIPTextEncoder(**CLIP), facts).eval()])


def probabilities(found: dict[str, Any], condition: str) -> dict[str, float]:
    return dict(found["conditions"][condition]["top"])


def test_the_three_conditions_are_those_of_the_predictor(model: Predictor) -> None:
    found = compare(model, Sample(IMAGE, TEXT))
    given: dict[str, dict[str, Any]] = {
        "complete": {"image": IMAGE, "text": TEXT},
        "no_image": {"text": TEXT},
        "no_text": {"image": IMAGE},
    }
    for condition, arguments in given.items():
        expected = model.predict(**arguments)
        assert isinstance(expected, Prediction)
        assert probabilities(found, condition) == pytest.approx(expected.probabilities, abs=1e-5)
        assert found["conditions"][condition]["labels"] == [expected.label]
    assert (found["current"], found["used"], found["text"]) == ("complete", ["image", "text"], TEXT)
    assert found["image"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("sample", "current", "available"),
    [
        (Sample(IMAGE, TEXT, frozenset(["image"])), "no_image", {"complete", "no_image", "no_text"}),
        (Sample(IMAGE, TEXT, frozenset(["text"])), "no_text", {"complete", "no_image", "no_text"}),
        (Sample(IMAGE, TEXT, frozenset(["image", "text"])), "nothing", {"complete", "no_image", "no_text", "nothing"}),
        (Sample(IMAGE, None), "no_text", {"no_text"}),
        (Sample(None, TEXT), "no_image", {"no_image"}),
        (Sample(None, TEXT, frozenset(["text"])), "nothing", {"no_image", "nothing"}),
        (Sample(None, None), "nothing", {"nothing"}),
    ],
    ids=["image off", "text off", "both off", "no text", "no image", "only one, off", "neither"],
)
def test_switches_choose_the_condition(model: Predictor, sample: Sample, current: str, available: set[str]) -> None:
    found = compare(model, sample)
    assert found["current"] == current
    assert {name for name, summary in found["conditions"].items() if summary is not None} == available


def test_without_both_it_is_the_class_frequencies(model: Predictor) -> None:
    found = compare(model, Sample(None, None))
    prior = model.predict(image=None, text=None)
    assert isinstance(prior, Prediction)
    assert probabilities(found, "nothing") == pytest.approx(prior.probabilities)


def test_of_many_classes_the_most_probable_are_listed() -> None:
    values = np.random.default_rng(0).dirichlet(np.ones(1000))
    names = [f"class {number}" for number in range(1000)]
    best = names[int(values.argmax())]
    found = summarise(Prediction(best, float(values.max()), dict(zip(names, values, strict=True)), ("image",), (best,)))
    assert len(found["top"]) == TOP
    assert found["others"] == 1000 - TOP
    assert [value for _, value in found["top"]] == sorted(values, reverse=True)[:TOP]


def test_large_pictures_are_sent_small(model: Predictor) -> None:
    found = compare(model, Sample(Image.effect_noise((3000, 2000), 90).convert("RGB"), None))
    assert found["image"].startswith("data:image/jpeg;base64,")
    assert len(found["image"]) < 300_000


def test_examples_of_generated_scenes_need_no_data() -> None:
    world = World(part="base")
    found = load_examples(None, world.class_names)
    assert len(found) == COUNT
    assert all(each.image and each.text and each.labels for each in found)
    drawn = Shapes(world=world, test=COUNT).draw("test", 0)
    assert found[0].content_type == "image/png"
    assert found[0].image is not None
    assert np.array_equal(np.asarray(Image.open(BytesIO(found[0].image))), np.asarray(drawn))


def test_other_models_have_no_examples_without_a_table() -> None:
    assert load_examples(None, ["cat", "dog"]) == []


def test_examples_of_a_table(tmp_path: Path) -> None:
    rows = []
    for number in range(40):
        write_image(tmp_path / f"{number}.png")
        rows.append([f"{number}.png" if number % 5 else "", f"text {number}" if number % 2 else "", f"c{number // 10}"])
    (tmp_path / "9.png").write_bytes(b"no image")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "text", "label"], *rows])
    found = load_examples(tmp_path / "t.csv", ["cat"])
    assert 6 <= len(found) <= COUNT
    assert {label for each in found for label in each.labels} == {"c0", "c1", "c2", "c3"}
    assert all(each.image or each.text for each in found)


def test_a_table_without_labels_is_enough(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,text\n,a red circle\n")
    assert [(each.text, each.labels) for each in load_examples(tmp_path / "t.csv", [])] == [("a red circle", [])]


def test_a_table_without_usable_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,text\n,\n")
    with pytest.raises(RobustTuneError, match="no row with an image that can be read or a text"):
        load_examples(tmp_path / "t.csv", [])


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(RobustTuneError, match=r"no\.csv does not exist: give --examples a table"):
        load_examples(tmp_path / "no.csv", [])
