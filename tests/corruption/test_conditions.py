"""Conditions: a name says all of one, and which samples are seen how is a function of ids and names."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robusttune.corruption.conditions import Conditions
from robusttune.corruption.grammar import MISSING_TYPES, NoiseLevel, parse
from robusttune.corruption.missing import Missing, draw_mask
from robusttune.corruption.noise import ImageNoise, ImageNoiseKind, TextNoise, TextNoiseKind
from robusttune.errors import RobustTuneError
from robusttune.types import View

CONFIGS = Path(__file__).parents[2] / "configs" / "conditions"
IDS = sorted(f"sample {number}" for number in range(157))
KINDS = {"image": get_args(ImageNoiseKind), "text": get_args(TextNoiseKind)}


@st.composite
def described(draw: st.DrawFn) -> tuple[str, View, tuple[str, float] | None]:
    """A name, made part by part, and what it stands for."""
    parts, modalities = [], {}
    for modality, kinds in KINDS.items():
        change = draw(st.sampled_from(["", "missing", *kinds]))
        severity = draw(st.integers(1, 5))
        if change:
            parts.append(f"no_{modality}" if change == "missing" else f"noisy_{modality}_{change}_{severity}")
            modalities[modality] = None if change == "missing" else f"{change}_{severity}"
    missing = None
    if draw(st.booleans()):
        left = [modality for modality in KINDS if modalities.get(modality, "clean") is not None]
        kind, percent = draw(st.sampled_from([*left, "both"])), draw(st.integers(1, 200)) / 2
        parts.append(f"missing_{kind}_{percent:g}")
        missing = (kind, percent)
    return "+".join(draw(st.permutations(parts))) or "complete", View(**modalities), missing


@given(described())
def test_a_name_says_all_of_a_condition(made: tuple[str, View, tuple[str, float] | None]) -> None:
    name, shown, missing = made
    assert parse(name) == (name, shown, missing)
    assert Conditions([name]).names == [name]
    assert parse(name).parts == (0 if name == "complete" else name.count("+") + 1)


@given(described())
def test_noise_alone_and_missing_rates_follow_from_the_name(made: tuple[str, View, tuple[str, float] | None]) -> None:
    name, _, missing = made
    condition = parse(name)
    level = condition.noise_alone
    assert (level is not None) == (name.startswith("noisy_") and "+" not in name)
    if level is not None:
        assert name == f"noisy_{level.modality}_{level.kind}_{level.severity}"
        assert level == NoiseLevel(level.modality, level.kind, int(level.severity))
    rates = {kind: condition.missing_rate(kind) for kind in MISSING_TYPES}
    if "+" in name or "noisy" in name:
        assert {*rates.values()} == {None}
    elif missing is None:
        expected = {"complete": (0, 0, 0), "no_image": (1, None, None), "no_text": (None, 1, None)}[name]
        assert rates == dict(zip(MISSING_TYPES, expected, strict=True))
    else:
        assert rates == {kind: missing[1] / 100 if kind == missing[0] else None for kind in MISSING_TYPES}


WRONG = {
    "": "give complete, no_image, no_text, missing_",
    "Complete": "give complete, ",
    "no_audio": "give complete, ",
    " no_image": "give complete, ",
    "no_image ": "give complete, ",
    "no_image\n": "give complete, ",
    "no_image+": "give complete, ",
    "complete+no_image": "give complete, ",
    "missing_image": "give complete, ",
    "missing_image_-5": "give complete, ",
    "missing_image_1e1": "give complete, ",
    "missing_audio_30": "give complete, ",
    "noisy_image_blur": "give complete, ",
    "noisy_audio_blur_3": "give complete, ",
    "missing_image_0": "give one missing rate, of more than 0 to 100 percent",
    "missing_image_100.5": "give one missing rate, of more than 0 to 100 percent",
    "missing_image_30+missing_text_30": "give one missing rate",
    "missing_image_30+missing_image_30": "give one missing rate",
    "noisy_image_typos_3": "the kinds of image noise are gaussian, .*, and severities go from 1 to 5",
    "noisy_text_blur_3": "the kinds of text noise are typos, .*, and severities go from 1 to 5",
    "noisy_image_blur_0": "severities go from 1 to 5",
    "noisy_image_blur_6": "severities go from 1 to 5",
    "noisy_image_blur_03": "severities go from 1 to 5",
    "noisy_image_blur_" + "9" * 5000: "severities go from 1 to 5",
    "missing_image_30+no_image": "it hides every image already",
    "no_image+no_image": "it has two parts about the image",
    "no_text+noisy_text_typos_1": "it has two parts about the text",
    "noisy_text_ocr_1+noisy_text_typos_1": "it has two parts about the text",
}


@pytest.mark.parametrize("name", WRONG, ids=lambda name: name[:40])
def test_a_wrong_name_is_one_sentence(name: str) -> None:
    with pytest.raises(RobustTuneError, match=f"is no condition: .*{WRONG[name]}") as caught:
        Conditions(["complete", name])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(repr(name))


def test_lists_that_do_not_work() -> None:
    with pytest.raises(RobustTuneError, match="there is no condition in data.evaluation.conditions: give one"):
        Conditions([])
    with pytest.raises(RobustTuneError, match="'no_text' comes twice in data.evaluation.conditions: leave one out"):
        Conditions(["no_text", "complete", "no_text"])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_list_works(path: Path) -> None:
    names = yaml.safe_load(path.read_text())["data"]["evaluation"]["conditions"]
    conditions = Conditions(names)
    assert conditions.names == names
    images, texts = conditions.noise
    noisy = {part for name in names for part in name.split("+") if part.startswith("noisy")}
    made = {f"noisy_image_{variant}" for variant in images} | {f"noisy_text_{variant}" for variant in texts}
    assert made == noisy


CLEAN, NO_IMAGE, NO_TEXT, NOTHING = View(), View(image=None), View(text=None), View(None, None)
VIEWS: dict[str, list[View]] = {
    "complete": [CLEAN],
    "no_image": [NO_IMAGE],
    "no_image+no_text": [NOTHING],
    "missing_image_20": [CLEAN, NO_IMAGE],
    "missing_text_20": [CLEAN, NO_TEXT],
    "missing_both_20": [CLEAN, NO_IMAGE, NO_TEXT],
    "noisy_image_blur_2": [View("blur_2")],
    "noisy_image_blur_2+no_text": [View("blur_2", None)],
    "noisy_image_low_resolution_2+noisy_text_other_text_5": [View("low_resolution_2", "other_text_5")],
    "missing_both_50+noisy_text_typos_3": [View("clean", "typos_3"), View(None, "typos_3"), NO_TEXT],
    "no_text+missing_image_20": [NO_TEXT, NOTHING],
}


@pytest.mark.parametrize("name", VIEWS)
def test_what_is_shown(name: str) -> None:
    assert Conditions([name]).views == VIEWS[name]


def test_a_view_of_several_conditions_comes_once() -> None:
    names = [*VIEWS]
    conditions = Conditions(names)
    assert set(conditions.views) == {view for views in VIEWS.values() for view in views}
    assert len(set(conditions.views)) == len(conditions.views)
    images, texts = conditions.noise
    assert images == {"blur_2": ImageNoise(["blur"], [2]), "low_resolution_2": ImageNoise(["low_resolution"], [2])}
    assert texts == {"other_text_5": TextNoise(["other_text"], [5]), "typos_3": TextNoise(["typos"], [3])}
    more = conditions.with_views([CLEAN, View("jpeg_1", None)])
    assert more.views == [*conditions.views, View("jpeg_1", None)]
    assert (more.view_indices(IDS) == conditions.view_indices(IDS)).all()


def shown_of(conditions: Conditions, ids: list[str]) -> list[list[View]]:
    """By condition, the view of each sample."""
    return [[conditions.views[number] for number in row] for row in conditions.view_indices(ids)]


@given(
    st.lists(st.text(), unique=True, min_size=1, max_size=40).map(sorted),
    st.sampled_from(["image", "text", "both"]),
    st.integers(1, 100),
    st.integers(0, 3),
)
def test_samples_lose_what_a_protocol_of_that_rate_takes(ids: list[str], kind: Any, percent: int, seed: int) -> None:
    """Exactly so many, the same as `data.missing` takes, and the rest is shown as under the other parts of the name."""
    plain, noisy = (f"missing_{kind}_{percent}{more}" for more in ("", "+noisy_image_shot_4"))
    conditions = Conditions(["no_text", plain, noisy, "complete"], seed)
    found = dict(zip(conditions.names, shown_of(conditions, ids), strict=True))
    mask = draw_mask(ids[::-1], Missing(rate=percent / 100, type=kind, seed=seed)).by_id()
    for sample_id, view, with_noise in zip(ids, found[plain], found[noisy], strict=True):
        assert (view.image is not None, view.text is not None) == mask[sample_id]
        assert with_noise == (view if view.image is None else view._replace(image="shot_4"))
    assert sum(view != CLEAN for view in found[plain]) == round(percent / 100 * len(ids))
    assert found["no_text"] == [NO_TEXT] * len(ids)
    assert found["complete"] == [CLEAN] * len(ids)


@pytest.mark.parametrize("kind", ["image", "text", "both"])
def test_who_lacks_a_modality_at_a_rate_lacks_it_at_greater_ones(kind: str) -> None:
    conditions = Conditions([f"missing_{kind}_{percent}" for percent in (100, 10, 30, 2.5, 70)])
    by_rate = dict(zip(conditions.names, conditions.view_indices(IDS), strict=True))
    rates = [by_rate[f"missing_{kind}_{percent}"] for percent in (2.5, 10, 30, 70, 100)]
    whole = conditions.views.index(CLEAN)
    for less, more in itertools.pairwise(rates):
        lost = less != whole
        assert (less[lost] == more[lost]).all()
        assert 0 < lost.sum() < (more != whole).sum()


def test_the_seed_matters() -> None:
    one, other = (Conditions(["missing_both_50"], seed).view_indices(IDS) for seed in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    "names",
    [
        ["no_text+noisy_image_blur_3", "noisy_image_blur_3+no_text"],
        ["missing_image_50", "complete", "missing_image_050"],
    ],
)
def test_one_condition_under_two_names_is_refused(names: list[str]) -> None:
    with pytest.raises(RobustTuneError, match="are one condition: leave one out"):
        Conditions(names)
