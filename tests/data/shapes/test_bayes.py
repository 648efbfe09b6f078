"""The Bayes accuracy, held against enumeration in full and against an oracle that reads pixels and words."""

from __future__ import annotations

import itertools
from collections import defaultdict
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes_oracle import Seen, answer, read_image, read_text

from robusttune.corruption.dropout import ModalityDropout, drop_modality, sample_generator
from robusttune.corruption.noise.text import drop_words
from robusttune.data.sources import Shapes, Visibility, World
from robusttune.data.sources.shapes import FACTORS, HIDDEN, Scene
from robusttune.data.sources.shapes.bayes import bayes_accuracy
from robusttune.data.sources.shapes.caption import caption_lengths
from robusttune.data.sources.shapes.factors import INDEX
from robusttune.errors import RobustTuneError
from robusttune.types import View


class Rates(NamedTuple):
    """Arguments of `Shapes.bayes_accuracy_when`."""

    image_missing: float
    text_missing: float
    word_dropout: float = 0.0


WORLDS = {
    "default": World(),
    "complete images": World(visibility=Visibility(0.5, 0.0, 0.5)),
    "distractors": World(hidden="distractor"),
    "three factors": World(factors=("size", "texture", "count"), part="all", visibility=Visibility(0.3, 0.3, 0.4)),
    "label noise": World(factors=("position", "colour"), label_noise=0.2, hidden="distractor"),
    "mostly noise": World(factors=("shape",), label_noise=0.9),
    "prior": World(classes=3, prior=(0.7, 0.2, 0.1), hidden="distractor", visibility=Visibility(0.4, 0.4, 0.2)),
}
RATES = {
    "complete": Rates(0, 0),
    "no_image": Rates(1, 0),
    "no_text": Rates(0, 1),
    "missing": Rates(0.3, 0.4),
    "word dropout": Rates(0, 0, 0.5),
    "all of it": Rates(0.5, 0.1, 0.8),
}


@cache
def scenes(world: World, samples: int) -> list[Scene]:
    """Scenes of the test split with seed 0."""
    return [world.scene(0, "test", index) for index in range(samples)]


@cache
def captions(world: World, samples: int) -> list[str]:
    """The captions of `scenes`."""
    return [Shapes(world).caption("test", index) for index in range(samples)]


def shown(shapes: Shapes, samples: int) -> list[Seen]:
    """What the images show, as the generator knows it."""
    return [scene.image for scene in scenes(shapes.world, samples)]


def seen(shapes: Shapes, samples: int) -> list[Seen]:
    """What the images show, read from their pixels."""
    return [read_image(shapes.draw("test", index), shapes.style) for index in range(samples)]


def found(shapes: Shapes, rates: Rates, images: list[Seen]) -> float:
    """The oracle's accuracy."""
    right = 0
    labels = [scene.label for scene in scenes(shapes.world, len(images))]
    texts = captions(shapes.world, len(images))
    for index, image in enumerate(images):
        rng = sample_generator(1, 0, str(index), "test")
        dropout = ModalityDropout(rates.image_missing, rates.text_missing)
        has_image, has_text = drop_modality(True, True, dropout, rng)
        text = read_text(drop_words(texts[index], rates.word_dropout, rng))
        said = answer(shapes.world, image if has_image else None, text if has_text else None)
        right += labels[index] == said
    return right / len(images)


def agrees(accuracy: float, best: float, samples: int) -> bool:
    return abs(accuracy - best) <= 4 * (best * (1 - best) / samples) ** 0.5 + 1e-9


def best(shapes: Shapes, rates: Rates) -> float:
    return shapes.bayes_accuracy_when(*rates)


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES)
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_oracle_reaches_it(world: World, rates: Rates) -> None:
    shapes = Shapes(world)
    assert agrees(found(shapes, rates, shown(shapes, 1000)), best(shapes, rates), 1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "style"), [("default", "paper"), ("three factors", "paper"), ("distractors", "blackboard")]
)
def test_oracle_reaches_it_from_pixels(name: str, style: Any) -> None:
    shapes = Shapes(WORLDS[name], style)
    images = seen(shapes, 100)
    for condition in ("no_text", "missing") if style == "blackboard" else ("complete", "no_text"):
        rates = RATES[condition]
        assert agrees(found(shapes, rates, images), best(shapes, rates), 100)


@pytest.mark.parametrize(
    "world",
    [pytest.param(world, id=name, marks=pytest.mark.exhaustive) for name, world in WORLDS.items()],
)
def test_oracle_reaches_it_from_many_pixels(world: World) -> None:
    shapes = Shapes(world)
    images = seen(shapes, 600)
    for rates in RATES.values():
        assert agrees(found(shapes, rates, images), best(shapes, rates), 600)


def in_full(world: World, image: bool, text: bool, words: int, dropout: float) -> float:
    """The same number by listing all that may happen to a sample, a caption of so many words included."""
    joint: dict[object, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    sizes = [len(FACTORS[INDEX[name]].values) for name in world.factors]
    sees = (world.visibility.image, world.visibility.text, world.visibility.both)
    subsets = list(itertools.product((False, True), repeat=words))
    for label, (values, prior) in enumerate(zip(world.combinations, world.class_prior, strict=True)):
        for ways in itertools.product(range(3), repeat=len(sizes)):
            hides = [i for i, way in enumerate(ways) if way < 2]
            drawn = [range(sizes[i]) if world.hidden == "distractor" else [HIDDEN] for i in hides]
            for stands_in in itertools.product(*drawn):
                chance = prior * np.prod([sees[way] for way in ways]) / np.prod([len(some) for some in drawn])
                shown, told = list(values), list(values)
                for i, value in zip(hides, stands_in, strict=True):
                    (told if ways[i] == 0 else shown)[i] = value
                for kept in subsets:
                    number = sum(kept)
                    share = (1 - dropout) ** number * dropout ** (words - number)
                    outcomes = [(kept, share)]
                    if number == 0:
                        rescued = [tuple(i == one for i in range(words)) for one in range(words)]
                        outcomes = [(only, share / words) for only in rescued]
                    for which, weight in outcomes:
                        left = tuple(v if keep else None for v, keep in zip(told, which, strict=False))
                        seen = (tuple(shown) if image else None, (left, sum(which)) if text else None)
                        for other in range(len(world.combinations)):
                            noise = world.label_noise / (len(world.combinations) - 1)
                            p = 1 - world.label_noise if other == label else noise
                            joint[seen][other] += chance * weight * p
    return sum(max(labels.values()) for labels in joint.values())


@settings(max_examples=25)
@given(st.data())
def test_is_the_full_enumeration(data: st.DataObject) -> None:
    shares = data.draw(st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any))
    factors = data.draw(st.sampled_from([("size",), ("count",), ("size", "count"), ("size", "position")]))
    world = World(
        factors=factors,
        part="all",
        classes=data.draw(st.integers(2, 4 if len(factors) > 1 else 2)),
        visibility=Visibility(*(share / sum(shares) for share in shares)),
        hidden=data.draw(st.sampled_from(["neutral", "distractor"])),
        label_noise=data.draw(st.sampled_from([0.0, 0.3, 0.95])),
    )
    image, text = data.draw(st.sampled_from([(True, True), (True, False), (False, True), (False, False)]))
    words, dropout = len(factors) + data.draw(st.integers(0, 2)), data.draw(st.sampled_from([0.0, 0.4, 1.0]))
    expected = in_full(world, image, text, words, dropout)
    assert bayes_accuracy(world, {words: 1.0}, image, text, dropout) == pytest.approx(expected, abs=1e-12)


def test_large_worlds_are_enumerated_piece_by_piece() -> None:
    world = World(factors=("colour", "shape", "texture", "position"), hidden="distractor")
    assert bayes_accuracy(world, caption_lengths()) == pytest.approx(0.694375)


def test_known_numbers() -> None:
    """By hand: a hidden colour leaves 4 of the 8 in base classes, a hidden shape 3 of 6, both leave all 24."""
    shapes = Shapes()
    assert shapes.bayes_accuracy_when() == pytest.approx(1)
    assert shapes.bayes_accuracy_when(image_missing=1) == pytest.approx(0.64 + 0.16 / 4 + 0.16 / 3 + 0.04 / 24)
    noisy = Shapes(World(label_noise=0.1))
    assert noisy.bayes_accuracy_when() == pytest.approx(0.9)
    assert bayes_accuracy(World(), caption_lengths(), image=False, text=False) == pytest.approx(1 / 24)


def test_views() -> None:
    shapes = Shapes()
    assert [shapes.bayes_accuracy(view) for view in (View(), View(image=None), View(text=None))] == [
        shapes.bayes_accuracy_when(),
        shapes.bayes_accuracy_when(image_missing=1),
        shapes.bayes_accuracy_when(text_missing=1),
    ]
    assert shapes.bayes_accuracy(View(image="noisy")) is None
    assert shapes.bayes_accuracy(View(None, None)) == pytest.approx(1 / 24)


@pytest.mark.parametrize("rates", [(1.2, 0, 0), (0, -0.1, 0), (0.6, 0.6, 0), (0, 0, 2)])
def test_refuses_what_is_no_probability(rates: tuple[float, ...]) -> None:
    with pytest.raises(RobustTuneError, match="image_missing|word_dropout is 2"):
        Shapes().bayes_accuracy_when(*rates)
