"""The generated data: what it is a function of, what it shows, and what it keeps to itself."""

from __future__ import annotations

import re
import string
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapes_oracle import read_image, read_text

from robusttune.corruption.dropout import sample_generator
from robusttune.data import ImageTextDataModule
from robusttune.data.sources import Shapes, Visibility, World
from robusttune.data.sources.shapes import FACTORS, HIDDEN, Scene
from robusttune.data.sources.shapes.caption import CLOSINGS, OPENINGS, SENTENCES, WORDS, caption, caption_lengths
from robusttune.data.sources.shapes.drawing import STYLES, StyleName, draw
from robusttune.data.sources.shapes.factors import INDEX
from robusttune.errors import RobustTuneError

SCENE = Scene(0, (1, 1, 5, 2, 1, 0), (1, 1, 5, 2, 1, 0))


def rng(number: int) -> np.random.Generator:
    return sample_generator(0, 0, str(number), "test")


def plain_words(text: str) -> list[str]:
    return [word.strip(string.punctuation) for word in text.split()]


def with_value(scene: Scene, factor: str, value: int) -> Scene:
    values = list(scene.image)
    values[INDEX[factor]] = value
    return scene._replace(image=tuple(values), text=tuple(values))


# Determinism


def test_a_sample_depends_on_seed_split_and_index_alone() -> None:
    small, large = Shapes(train=3, seed=7), Shapes(train=50, test=9, seed=7)
    assert small.read("train") == large.read("train").slice(0, 3)  # type: ignore[union-attr]
    names = ["train/2", "test/2", "train/1"]
    pictures = [np.asarray(large.images.read(name)) for name in names]
    again = [np.asarray(small.images.read(name)) for name in reversed(names)]
    assert all(np.array_equal(a, b) for a, b in zip(pictures, reversed(again), strict=True))
    other = np.asarray(Shapes(seed=8).images.read("train/2"))
    assert not any(np.array_equal(pictures[0], image) for image in (*pictures[1:], other))


@pytest.mark.slow
def test_image_and_text_are_of_one_scene() -> None:
    """What both show is the same: where neither hides a factor, they agree in it."""
    shapes = Shapes(World(visibility=Visibility(0, 0, 1)))
    for index in range(40):
        assert read_image(shapes.draw("val", index)) == read_text(shapes.caption("val", index))


@pytest.mark.slow
@pytest.mark.parametrize("hidden", ["neutral", "distractor"])
def test_everything_can_be_read_back(hidden: Any) -> None:
    """From pixels and from words, whatever is hidden."""
    shapes = Shapes(World(factors=("texture", "shape"), hidden=hidden, part="all"))
    for index in range(100):
        scene = shapes.world.scene(0, "train", index)
        assert read_image(shapes.draw("train", index)) == scene.image
        assert read_text(shapes.caption("train", index)) == scene.text


@pytest.mark.slow
def test_colour_and_shape_can_be_read_from_a_blackboard() -> None:
    """Nearly always: dark halves of green objects are hard to find, for an oracle that knows no context."""
    shapes, which = Shapes(style="blackboard"), [INDEX["colour"], INDEX["shape"]]
    right = 0
    for index in range(100):
        shown, seen = shapes.world.scene(0, "train", index).image, read_image(shapes.draw("train", index), "blackboard")
        right += all(shown[i] == seen[i] for i in which)
    assert right >= 96


# Classes


def test_base_and_new_classes() -> None:
    base, new = World(), World(part="new")
    assert len(base.class_names) >= 20
    assert len(new.class_names) >= 20
    assert not {*base.class_names} & {*new.class_names}
    assert {*base.class_names, *new.class_names} == {*World(part="all").class_names}
    for which in range(2):  # every colour and every shape is in either
        assert {values[which] for values in base.combinations} == {values[which] for values in new.combinations}
    assert len({values for world in (base, new) for values in world.combinations}) == 48
    few = World(classes=12).combinations
    assert [len({values[which] for values in few}) for which in range(2)] == [8, 6]


def test_class_names_are_phrases() -> None:
    assert World().class_names[:2] == ["red circle", "orange square"]
    names = World(factors=("position", "size", "texture", "shape")).class_names
    assert "small plain circle left" in names
    assert len({*names}) == len(names)


def test_prior_and_label_noise_are_what_was_set() -> None:
    world = World(classes=3, prior=(0.6, 0.3, 0.1), label_noise=0.25)
    clean = World(classes=3, prior=(0.6, 0.3, 0.1))
    labels = [world.scene(0, "train", index).label for index in range(6000)]
    true = [clean.scene(0, "train", index).label for index in range(6000)]
    assert np.bincount(true) / 6000 == pytest.approx([0.6, 0.3, 0.1], abs=0.02)
    assert np.mean(np.array(labels) != true) == pytest.approx(0.25, abs=0.02)
    assert {*labels} == {0, 1, 2}


def test_a_scene_shows_the_values_of_its_class() -> None:
    world = World(visibility=Visibility(0, 0, 1))
    for index in range(100):
        scene = world.scene(3, "test", index)
        for name, value in zip(world.factors, world.combinations[scene.label], strict=True):
            assert scene.image[INDEX[name]] == scene.text[INDEX[name]] == value


@pytest.mark.parametrize("hidden", ["neutral", "distractor"])
def test_visibility(hidden: Any) -> None:
    """How often each modality shows a factor, and that no factor is hidden from both."""
    world = World(visibility=Visibility(0.5, 0.2, 0.3), hidden=hidden)
    scenes = [world.scene(0, "train", index) for index in range(4000)]
    colour = INDEX["colour"]
    true = [world.combinations[scene.label][0] for scene in scenes]
    shown = [np.mean([modality[colour] == v for modality, v in zip(modalities, true, strict=True)]) for modalities in
             ([s.image for s in scenes], [s.text for s in scenes])]  # fmt: skip
    by_chance = 0.0 if hidden == "neutral" else 1 / 8
    assert shown == pytest.approx([0.8 + 0.2 * by_chance, 0.5 + 0.5 * by_chance], abs=0.03)
    assert all(v in (s.image[colour], s.text[colour]) for s, v in zip(scenes, true, strict=True))
    assert (hidden == "neutral") == any(HIDDEN in scene.image for scene in scenes)


def test_complete_images_show_everything() -> None:
    world = World(visibility=Visibility(0.5, 0, 0.5))
    assert not any(HIDDEN in world.scene(0, "train", index).image for index in range(500))
    assert Shapes(world).bayes_accuracy_when(text_missing=1) == pytest.approx(1)


# Words


def test_each_word_means_one_thing() -> None:
    said = [word for factor in FACTORS for words in (*factor.values, factor.neutral) for word in words]
    assert len({*said}) == len(said)
    assert not any(" " in word for word in said)
    sentences = [re.sub(r"{\w+}", "", sentence) for sentence in SENTENCES]
    fillers = {word for part in (*OPENINGS, *CLOSINGS, *sentences) for word in plain_words(part)}
    assert not fillers & {*WORDS}
    assert all(sentence.count(f"{{{factor.name}}}") == 1 for sentence in SENTENCES for factor in FACTORS)


def test_fillers_and_length_know_nothing_of_the_scene() -> None:
    scenes = [World(part="all").scene(0, "train", index) for index in range(50)]
    for number in range(20):
        rest = {tuple(word for word in plain_words(caption(s, rng(number))) if word not in WORDS) for s in scenes}
        assert len(rest) == 1


def test_caption_lengths_are_as_drawn() -> None:
    shapes = Shapes()
    drawn = Counter(len(shapes.caption("train", index).split()) for index in range(4000))
    assert sum(caption_lengths().values()) == pytest.approx(1)
    for length, share in caption_lengths().items():
        assert drawn[length] / 4000 == pytest.approx(share, abs=0.03)


def test_synonyms_all_occur() -> None:
    shapes = Shapes()
    words = {word for index in range(3000) for word in plain_words(shapes.caption("train", index))}
    assert {*WORDS} <= words


# Pixels


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("factor", FACTORS, ids=lambda factor: factor.name)
def test_values_look_different(style: StyleName, factor: Any) -> None:
    """Through twice the grain, a drawing is nearest to that of its own value, also where another factor is hidden."""
    noise = np.random.default_rng(0)
    values = [*range(len(factor.values)), HIDDEN]
    for number, other in enumerate([SCENE, *(with_value(SCENE, f.name, HIDDEN) for f in FACTORS if f is not factor)]):
        drawn = [
            np.asarray(draw(with_value(other, factor.name, v), style, rng(number)), dtype=np.float64) for v in values
        ]
        for i, image in enumerate(drawn):
            seen = image + 2 * STYLES[style].grain * noise.standard_normal((64, 64, 1))
            assert int(np.argmin([((seen - candidate) ** 2).sum() for candidate in drawn])) == i


def test_ground_and_clutter_know_nothing_of_the_scene() -> None:
    """The upper left corner is the same whatever is drawn lower right."""
    scenes = [with_value(with_value(SCENE, "position", 1), "count", 0)._replace(label=k) for k in range(2)]
    scenes += [with_value(scenes[0], "colour", 2), with_value(scenes[0], "shape", HIDDEN)]
    for number in range(10):
        corners = [np.asarray(draw(scene, "paper", rng(number)))[:, :20] for scene in scenes]
        assert all(np.array_equal(corners[0], corner) for corner in corners)


def test_styles_differ() -> None:
    paper, board = (np.asarray(Shapes(style=style).draw("train", 0)) for style in STYLES)
    assert paper.shape == board.shape == (64, 64, 3)
    assert np.median(paper) > 200
    assert np.median(board) < 70


# As data


def test_in_the_data_module(tmp_path: Path, text_folder: Path) -> None:
    from fakes import tiny_image_encoder, tiny_text_encoder

    data = ImageTextDataModule(
        Shapes(train=40, val=8, test=8), tiny_image_encoder(), tiny_text_encoder(text_folder), batch_size=8
    )
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert sum(map(len, batches)) == 40
    assert len(data.facts.class_names) == 24
    assert sum(data.facts.class_frequencies) == pytest.approx(1)
    assert batches[0].images["clean"].shape[1:] == (3, 32, 32)  # type: ignore[union-attr]


def test_images_are_distinguished_by_what_they_are_drawn_of() -> None:
    reader = Shapes(seed=1).images
    others = [Shapes(seed=2), Shapes(seed=1, style="blackboard"), Shapes(World(part="new"), seed=1)]
    digests = {reader.digest("train/0"), reader.digest("train/1"), *(o.images.digest("train/0") for o in others)}
    assert len(digests) == 5
    assert reader.digest("train/0") == Shapes(seed=1, train=9).images.digest("train/0")
    assert reader.missing(["train/0"]) == []


# What cannot be


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factors": ()}, "factors none do not work: give 1 to 4"),
        ({"factors": ("colour", "smell")}, "factors colour, smell do not work: .* size, texture, colour"),
        ({"factors": ("colour", "colour")}, "factors colour, colour do not work"),
        ({"factors": tuple(INDEX)[:5]}, "do not work: give 1 to 4 different ones"),
        (
            {"classes": 25},
            "classes 25 do not fit the base combinations of 8 colour x 6 shape, of which there are 24",
        ),
        ({"classes": 1}, "classes 1 do not fit"),
        ({"factors": ("size",)}, "classes 1 do not fit the base combinations of 2 size, of which there are 1"),
        ({"prior": (0.5, 0.5)}, "the prior has 2 numbers for 24 classes"),
        ({"classes": 2, "prior": (0.5, 0.4)}, "prior 0.5, 0.4 sums to 0.9"),
        ({"classes": 2, "prior": (1.5, -0.5)}, "prior 1.5, -0.5 sums to 1: give probabilities"),
        ({"label_noise": 1.5}, "label_noise is 1.5"),
        ({"label_noise": float("nan")}, "label_noise is nan"),
    ],
)
def test_impossible_worlds(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        World(**settings)


def test_impossible_visibility() -> None:
    with pytest.raises(RobustTuneError, match=r"visibility \(image, text, both\) 0.5, 0.5, 0.5 sums to 1.5"):
        Visibility(0.5, 0.5, 0.5)
    with pytest.raises(RobustTuneError, match="both\\) nan"):
        Visibility(float("nan"), 0.5, 0.5)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_empty_splits(name: str) -> None:
    size: dict[str, Any] = {name: 0}
    with pytest.raises(RobustTuneError, match=f"data.source.{name} is 0: give at least 1"):
        Shapes(**size)
