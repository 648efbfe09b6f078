"""Noise settings: what they refuse, how YAML fills them, and what they draw."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser

from robusttune.corruption.noise import ImageNoise, TextNoise, corrupt_image, corrupt_text, settings
from robusttune.errors import RobustTuneError

IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8))
TEXT = "a bowl of fresh green salad with grilled chicken on the table"


@dataclass(frozen=True)
class Both:
    image: ImageNoise | None = None
    text: TextNoise | None = None


@pytest.mark.parametrize(("noise", "kind"), [(ImageNoise, "blur"), (TextNoise, "ocr")])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kinds": []}, r"noise kinds \[\] do not work: list one or more of "),
        ({"kinds": ["snow"]}, r"noise kinds \['snow'\] do not work: list one or more of "),
        ({"severities": []}, r"noise severities \[\] do not work: list one or more of 1, 2, 3, 4, 5$"),
        ({"severities": [3, 0]}, r"noise severities \[3, 0\] do not work"),
        ({"severities": [6]}, r"noise severities \[6\] do not work"),
        ({"rate": -0.1}, "noise rate is -0.1: give a number from 0 to 1"),
        ({"rate": 1.1}, "noise rate is 1.1"),
        ({"rate": float("nan")}, "noise rate is nan"),
    ],
)
def test_impossible_noise_is_refused(noise: type, kind: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        noise(**{"kinds": [kind], **given})


def test_each_modality_has_kinds_of_its_own() -> None:
    with pytest.raises(RobustTuneError, match="list one or more of gaussian, shot, "):
        ImageNoise(["ocr"])  # type: ignore[list-item]
    with pytest.raises(RobustTuneError, match="list one or more of typos, deletion, "):
        TextNoise(["blur"])  # type: ignore[list-item]


def test_by_default_severity_is_3_and_nothing_is_spared() -> None:
    assert ImageNoise(["blur"]) == ImageNoise(["blur"], severities=[3], rate=1.0)
    assert ImageNoise(["blur"]).severities is not ImageNoise(["blur"]).severities


@pytest.mark.parametrize(
    ("arguments", "noise"),
    [
        ([], Both()),
        (
            ["--noise", "{image: {kinds: [blur, jpeg], severities: [1, 2, 3], rate: 0.5}}"],
            Both(image=ImageNoise(["blur", "jpeg"], [1, 2, 3], 0.5)),
        ),
        (["--noise.text.kinds=[ocr]", "--noise.text.rate=.2"], Both(text=TextNoise(["ocr"], rate=0.2))),
    ],
)
def test_yaml_fills_them(arguments: list[str], noise: Both) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Both, "noise")
    assert parser.instantiate(parser.parse_args(arguments)).noise == noise


def test_yaml_with_an_unknown_kind_is_refused() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageNoise, "noise")
    given = parser.parse_args(["--noise", "{kinds: [blur, jpeg], severities: [1, 2, 3], rate: 0.5}"])
    assert parser.instantiate(given).noise == ImageNoise(["blur", "jpeg"], [1, 2, 3], 0.5)
    with pytest.raises(ArgumentError, match="snow"):
        parser.parse_args(["--noise", "{kinds: [blur, snow]}"])


def test_one_kind_of_one_severity_is_applied() -> None:
    found = ImageNoise(["gaussian"], [4]).apply(IMAGE, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    rng.random(), rng.integers(1), rng.integers(1)
    assert torch.equal(found, corrupt_image(IMAGE, "gaussian", 4, rng))
    assert TextNoise(["truncation"], [2]).apply(TEXT, rng, None) == corrupt_text(TEXT, "truncation", 2, rng, None)
    assert TextNoise(["other_text"], [5]).apply(TEXT, rng, "something else") == "something else"


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_rate_is_kept(rate: float) -> None:
    rng, images, texts = (
        np.random.default_rng(0),
        ImageNoise(["gaussian"], rate=rate),
        TextNoise(["truncation"], rate=rate),
    )
    assert np.mean([images.apply(IMAGE, rng) is not IMAGE for _ in range(1000)]) == pytest.approx(rate, abs=0.04)
    assert np.mean([texts.apply(TEXT, rng, None) != TEXT for _ in range(1000)]) == pytest.approx(rate, abs=0.04)


def test_kinds_and_severities_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Counter[tuple[str, int]] = Counter()
    monkeypatch.setattr(settings, "corrupt_image", lambda image, kind, severity, rng: drawn.update([(kind, severity)]))
    monkeypatch.setattr(settings, "corrupt_text", lambda text, kind, severity, *_: drawn.update([(kind, severity)]))
    for seed in range(3000):
        ImageNoise(["blur", "jpeg"], [1, 3, 5]).apply(IMAGE, np.random.default_rng(seed))
        TextNoise(["ocr", "swap"], [2, 4, 5]).apply(TEXT, np.random.default_rng(seed), None)
    images = [(kind, severity) for kind in ("blur", "jpeg") for severity in (1, 3, 5)]
    texts = [(kind, severity) for kind in ("ocr", "swap") for severity in (2, 4, 5)]
    assert set(drawn) == {*images, *texts}
    assert all(count == pytest.approx(500, abs=80) for count in drawn.values())


def test_the_same_state_gives_the_same() -> None:
    images = ImageNoise(["gaussian", "shot", "occlusion"], [1, 3, 5], rate=0.7)
    texts = TextNoise(["typos", "swap", "ocr"], [1, 3, 5], rate=0.7)
    for seed in range(20):
        first, second = np.random.default_rng(seed), np.random.default_rng(seed)
        assert torch.equal(images.apply(IMAGE, first), images.apply(IMAGE, second))
        assert texts.apply(TEXT, first, None) == texts.apply(TEXT, second, None)
