"""Text noise: how much each severity damages, any Unicode, and that each kind does what its name says."""

from __future__ import annotations

import unicodedata
from collections import Counter
from difflib import SequenceMatcher
from functools import cache
from itertools import pairwise
from time import process_time
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from robusttune.corruption.noise import SEVERITIES, TEXT_NOISE, TextNoiseKind, corrupt_text

TEXT = "a bowl of fresh green salad with Parmesan and grilled Chicken on the large wooden table for 8 people"
RANDOM = ("typos", "deletion", "swap", "masking", "ocr", "other_text")
every_kind = pytest.mark.parametrize("kind", TEXT_NOISE)
any_text = st.text(
    st.one_of(st.characters(), st.sampled_from(" \n\u0301\u200d\ufe0f😀אבعनि")), max_size=60
)  # surrogates, too


def corrupted(text: str, kind: TextNoiseKind, severity: int, seed: int = 0, other: str | None = "one two three") -> str:
    return corrupt_text(text, kind, severity, np.random.default_rng(seed), other)


@cache
def caption(seed: int) -> str:
    """20 words."""
    return " ".join(np.random.default_rng(seed).choice(TEXT.split(), 20))


def distance(text: str, other: str) -> float:
    return 1 - SequenceMatcher(None, text, other, autojunk=False).ratio()


def subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)


def test_every_kind_is_there() -> None:
    assert tuple(TEXT_NOISE) == get_args(TextNoiseKind)


@every_kind
def test_each_severity_damages_more(kind: TextNoiseKind) -> None:
    def damage(severity: int) -> float:
        noisy = [corrupted(caption(i), kind, severity, i, caption(i + 1)) for i in range(40)]
        return float(np.mean([distance(caption(i), found) for i, found in enumerate(noisy)]))

    damages = [damage(severity) for severity in SEVERITIES]
    assert damages[0] > 0
    assert all(more > 1.1 * less for less, more in pairwise(damages))


@every_kind
def test_the_same_seed_gives_the_same(kind: TextNoiseKind) -> None:
    found = [corrupted(caption(0), kind, 3, seed) for seed in (0, 0, 1, 2)]
    assert found[0] == found[1]
    assert (found[0] != found[2] != found[3]) == (kind in RANDOM)


@every_kind
@given(text=any_text, other=st.none() | any_text, severity=st.sampled_from(SEVERITIES), seed=st.integers(0, 99))
def test_no_text_fails_or_becomes_blank(
    kind: TextNoiseKind, text: str, other: str | None, severity: int, seed: int
) -> None:
    found = corrupted(text, kind, severity, seed, other)
    assert bool(found.strip()) == bool(text.strip())
    if not text.strip():
        assert found == text


@every_kind
def test_a_single_letter_stays_a_text(kind: TextNoiseKind) -> None:
    assert all(corrupted("a", kind, 5, seed, None).strip() for seed in range(200))


@pytest.mark.parametrize("text", ["x" * 100_000, "word " * 20_000, "א" * 100_000, "rn" * 50_000, "a " * 50_000])
@every_kind
def test_long_texts_take_no_time(kind: TextNoiseKind, text: str) -> None:
    start = process_time()
    corrupted(text, kind, 5, other=text)
    assert process_time() - start < 1  # not what others take of the machine


def test_typos_are_slips_on_a_keyboard() -> None:
    def slips(text: str) -> set[str]:
        return {corrupted(text, "typos", 5, seed) for seed in range(1500)}

    assert slips("(g)") == {"(g)", "()", "(gg)", *(f"({key}{g})" for key in "tyfhvb" for g in ("", "g"))}
    assert slips("(P)") == {"(P)", "()", "(PP)", "(O)", "(OP)", "(L)", "(LP)"}
    assert slips("(א)") == {"(א)", "()", "(אא)"}


def test_typos_hit_their_share_of_the_letters_alone() -> None:
    letters = "g" * 20_000
    for severity, rate in zip(SEVERITIES, TEXT_NOISE["typos"][1], strict=True):
        found = Counter(corrupted(letters, "typos", severity))
        slips = sum(found.values()) - found["g"]  # half of all: another key instead or as well
        assert slips / 20_000 == pytest.approx(rate / 2, rel=0.15)
    assert corrupted("8 ½ + 😀 [1] _", "typos", 5) == "8 ½ + 😀 [1] _"


@given(text=any_text, seed=st.integers(0, 99))
@example(text="e\u0301a\u0308o\u0302\u0323" * 20, seed=0)
def test_typos_leave_marks_on_their_letters(text: str, seed: int) -> None:
    def marked(text: str) -> list[tuple[str, str]]:
        return [(a, b) for a, b in pairwise(" " + text) if unicodedata.category(b).startswith("M")]

    assert marked(corrupted(text, "typos", 5, seed)) == marked(text)


@pytest.mark.parametrize("kind", ["deletion", "truncation"])
def test_words_are_left_out(kind: TextNoiseKind) -> None:
    words = [f"w{i}" for i in range(2000)]
    for severity, parameter in zip(SEVERITIES, TEXT_NOISE[kind][1], strict=True):
        kept = corrupted(" ".join(words), kind, severity).split()
        share = parameter if kind == "truncation" else 1 - parameter
        assert len(kept) / 2000 == pytest.approx(share, abs=0.04)
        assert subsequence(kept, words)
        assert (kept == words[: len(kept)]) == (kind == "truncation")
    assert corrupted("one two", kind, 5) in ("one", "two")
    assert all(corrupted("one", kind, 5, seed) == "one" for seed in range(20))


def test_words_swap_more_and_further() -> None:
    words, moved, furthest = [str(i) for i in range(500)], [], []
    for severity, reach in zip(SEVERITIES, TEXT_NOISE["swap"][1], strict=True):
        found = corrupted(" ".join(words), "swap", severity).split()
        assert sorted(found) == sorted(words)
        jumps = [abs(place - int(word)) for place, word in enumerate(found)]
        moved.append(sum(jump > 0 for jump in jumps))
        furthest.append(max(jumps))
        assert furthest[-1] < reach
    assert 0 < moved[0] < 100
    assert all(less < more for less, more in pairwise(moved))
    assert furthest[0] == 1
    assert furthest[-1] > 4


def test_masked_words_are_one_token_each() -> None:
    words = [f"w{i}" for i in range(2000)]
    for severity, rate in zip(SEVERITIES, TEXT_NOISE["masking"][1], strict=True):
        found = corrupted(" ".join(words), "masking", severity).split()
        assert all(after in (before, "[MASK]") for before, after in zip(words, found, strict=True))
        assert found.count("[MASK]") / 2000 == pytest.approx(rate, abs=0.04)
    assert {corrupted("one two", "masking", 5, seed) for seed in range(50)} == {"one two", "[MASK] two", "one [MASK]"}


def test_ocr_takes_characters_for_what_looks_like_them() -> None:
    def readings(text: str) -> set[str]:
        return {corrupted(text, "ocr", 5, seed) for seed in range(200)}

    assert readings("m") == {"m", "rn"}
    assert readings("cl") == {"cl", "d"}
    assert readings("w") == {"w", "vv"}
    assert readings("d") == {"d", "cl"}
    assert readings("O") == {"O", "0", "Q"}
    assert readings("8") == {"8", "B"}
    assert readings("1") == {"1", "l", "I"}
    assert readings("x + 😀 א") == {"x + 😀 א"}
    for severity, rate in zip(SEVERITIES, TEXT_NOISE["ocr"][1], strict=True):
        assert corrupted("8" * 5000, "ocr", severity).count("B") / 5000 == pytest.approx(rate, abs=0.02)


def test_another_text_comes_in_word_by_word() -> None:
    own, theirs = [f"a{i}" for i in range(1000)], [f"b{i}" for i in range(500)]
    for severity, share in zip(SEVERITIES, TEXT_NOISE["other_text"][1], strict=True):
        found = corrupted(" ".join(own), "other_text", severity, other=" ".join(theirs)).split()
        kept, come = ([word for word in found if word[0] == letter] for letter in "ab")
        assert subsequence(kept, own)
        assert subsequence(come, theirs)
        assert len(kept) / 1000 == pytest.approx(1 - share, abs=0.05)
        assert len(come) / 500 == pytest.approx(share, abs=0.07)
    half = corrupted(" ".join(own), "other_text", 3, other=" ".join(theirs)).split()
    assert len([word for word in half[: len(half) // 2] if word[0] == "b"]) == pytest.approx(125, abs=25)
    assert corrupted("a picture", "other_text", 5, other="of something  else") == "of something else"


@pytest.mark.parametrize("other", [None, "", " \n"])
def test_without_another_text_words_go_and_one_stays(other: str | None) -> None:
    assert {corrupted("one two", "other_text", 5, seed, other) for seed in range(50)} == {"one", "two"}
    assert corrupted("one", "other_text", 5, 0, other) == "one"
