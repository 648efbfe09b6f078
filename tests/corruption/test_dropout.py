"""Modality dropout and noise."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from robusttune.corruption.dropout import drop_modality, sample_generator
from robusttune.corruption.noise.text import drop_words
from robusttune.data import ModalityDropout
from robusttune.errors import RobustTuneError


def test_rates_are_kept_and_never_both_modalities_go() -> None:
    settings = ModalityDropout(image_dropout=0.2, text_dropout=0.5)
    kept = Counter(drop_modality(True, True, settings, sample_generator(0, 0, str(i), "modality")) for i in range(4000))
    assert kept[(False, True)] / 4000 == pytest.approx(0.2, abs=0.025)
    assert kept[(True, False)] / 4000 == pytest.approx(0.5, abs=0.025)
    assert (False, False) not in kept


@pytest.mark.parametrize("modalities", [(True, False), (False, True), (False, False)])
def test_a_modality_that_is_alone_stays(modalities: tuple[bool, bool]) -> None:
    settings = ModalityDropout(image_dropout=0.5, text_dropout=0.5)
    assert all(
        drop_modality(*modalities, settings, sample_generator(0, 0, str(i), "modality")) == modalities
        for i in range(50)
    )


def test_generators_depend_on_seed_epoch_sample_and_use() -> None:
    keys = [(0, 0, "a", "x"), (1, 0, "a", "x"), (0, 1, "a", "x"), (0, 0, "b", "x"), (0, 0, "a", "y")]
    draws = {key: sample_generator(*key).random() for key in keys}
    assert len(set(draws.values())) == 5
    assert sample_generator(0, 0, "a", "x").random() == draws[0, 0, "a", "x"]


def test_words_are_dropped_at_their_rate_and_one_stays() -> None:
    text = " ".join(map(str, range(2000)))
    kept = drop_words(text, 0.3, np.random.default_rng(0)).split()
    assert len(kept) / 2000 == pytest.approx(0.7, abs=0.03)
    assert [int(word) for word in kept] == sorted(map(int, kept))
    assert drop_words("one two", 1.0, np.random.default_rng(0)) in ("one", "two")
    assert drop_words("", 0.5, np.random.default_rng(0)) == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_dropout": 0.6, "text_dropout": 0.5}, "add up to more than 1"),
        ({"text_dropout": -0.1}, "text_dropout is -0.1"),
        ({"image_dropout": 2}, "image_dropout is 2"),
    ],
)
def test_impossible_rates_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        ModalityDropout(**settings)
