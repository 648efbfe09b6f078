"""Missing-modality protocols: a mask is a function of ids and settings, and what it depends on."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusttune.corruption.missing import draw_mask, label_scores, rank_scores
from robusttune.data import Missing
from robusttune.errors import RobustTuneError

IDS = [f"sample {number}" for number in range(500)]
TYPES = st.sampled_from(["image", "text", "both"])
SHARES = st.floats(0, 1)


def scores_of(labels: list[list[str]], seed: int = 0) -> Any:
    names = list(dict.fromkeys(name for row in labels for name in row))
    flat = np.array([names.index(name) for row in labels for name in row], dtype=np.int32)
    return label_scores(names, flat, np.array([len(row) for row in labels]), seed)


@given(st.lists(st.text(), unique=True, max_size=40), SHARES, TYPES, SHARES, st.integers(0, 9), st.randoms())
def test_counts_are_exact_and_order_does_not_matter(
    ids: list[str], rate: float, kind: Any, ratio: float, seed: int, order: random.Random
) -> None:
    settings = Missing(rate=rate, type=kind, ratio=ratio, seed=seed)
    mask = draw_mask(ids, settings)
    shuffled = order.sample(ids, len(ids))
    assert mask.hash == draw_mask(shuffled, settings).hash
    assert mask.ids.to_pylist() == ids
    lost = ~mask.present
    assert not lost.all(axis=1).any(), "none lacks both"
    assert lost.any(axis=1).sum() == round(rate * len(ids))
    share = {"image": 1.0, "text": 0.0, "both": ratio}[kind]
    assert lost[:, 0].sum() == int(round(rate * len(ids)) * share + 0.5)


@given(
    st.lists(st.text(), unique=True, min_size=1, max_size=40),
    SHARES,
    TYPES,
    SHARES,
    st.sampled_from(["nothing", "one score", "two scores"]),
    st.integers(0, 9),
)
def test_arrays_draw_what_row_by_row_decisions_draw(
    ids: list[str], rate: float, kind: Any, ratio: float, depends: str, seed: int
) -> None:
    settings = Missing(rate=rate, type=kind, ratio=ratio, seed=seed)
    image, text = np.random.default_rng(seed).uniform(-1, 1, (2, len(ids)))
    scores = {
        "nothing": None,
        "one score": {"image": image, "text": image},
        "two scores": {"image": image, "text": text},
    }
    expected, digest = mask_row_by_row(ids, settings, scores[depends])
    mask = draw_mask(ids, settings, scores[depends])
    assert mask.by_id() == expected
    assert mask.hash == digest


def mask_row_by_row(ids: list[str], settings: Missing, scores: Any) -> tuple[dict[str, tuple[bool, bool]], str]:
    """Draw a mask with one sample after the other, and its hash."""
    order = sorted(range(len(ids)), key=ids.__getitem__)
    numbers = []
    for row in order:
        digest = hashlib.blake2b(f"{settings.seed} {ids[row]}".encode(), digest_size=8).digest()
        numbers.append((int.from_bytes(digest, "little") + 0.5) / 2**64)
    exponentials, lost, queues = -np.log(numbers), np.zeros((len(ids), 2), dtype=bool), []

    def open_rows(queue: Any) -> Iterator[int]:
        return (int(row) for row in queue if not lost[row].any())

    for modality in ("image", "text"):
        weights = 1.0 if scores is None else np.exp(scores[modality][order])
        queues.append(open_rows(np.argsort(exponentials / weights, kind="stable")))
    share = {"image": 1.0, "text": 0.0, "both": settings.ratio}[settings.type]
    for count in range(round(settings.rate * len(ids))):  # type: ignore[operator]
        column = 0 if int((count + 1) * share + 0.5) > int(count * share + 0.5) else 1
        lost[next(queues[column]), column] = True
    shown = {ids[row]: (not image, not text) for row, (image, text) in zip(order, lost.tolist(), strict=True)}
    lines = "".join(f"{name!r} {image:d} {text:d}\n" for name, (image, text) in shown.items())
    return shown, hashlib.blake2b(lines.encode(), digest_size=8).hexdigest()


@pytest.mark.parametrize("kind", ["image", "text", "both"])
@pytest.mark.parametrize("depends", [False, True])
def test_greater_rates_hold_smaller_ones(kind: Any, depends: bool) -> None:
    """So a curve over rates compares the same samples, and is not blurred by the draw."""
    scores = np.linspace(-1, 1, len(IDS))
    known = {"image": scores, "text": -scores} if depends else None
    masks = [draw_mask(IDS, Missing(rate=rate / 10, type=kind, ratio=0.3), known).present for rate in range(11)]
    for less, more in itertools.pairwise(masks):
        assert (more <= less).all()


def test_every_setting_matters() -> None:
    base = {"rate": 0.5, "type": "both", "ratio": 0.5, "seed": 0}
    hashes = {draw_mask(IDS, Missing(**base | change)).hash for change in CHANGES}  # type: ignore[arg-type]
    assert len(hashes) == len(CHANGES)
    assert draw_mask(IDS[1:], Missing(**base)).hash not in hashes  # type: ignore[arg-type]


CHANGES: list[dict[str, Any]] = [{}, {"rate": 0.6}, {"type": "image"}, {"type": "text"}, {"ratio": 0.6}, {"seed": 1}]


def test_a_mask_stays_the_same_for_good() -> None:
    """Another number here means that published masks can no longer be drawn again."""
    assert draw_mask(IDS, Missing(rate=0.7)).hash == "559ff5a587742d70"


def test_missing_at_random_has_nothing_to_do_with_order() -> None:
    lost = ~draw_mask(IDS, Missing(rate=0.5, type="image")).present[:, 0]
    assert abs(lost[:250].mean() - 0.5) < 0.1
    both = ~draw_mask(IDS, Missing(rate=0.5)).present
    assert abs(both[:250, 0].mean() - 0.25) < 0.1


def test_classes_that_lose_more() -> None:
    labels = [[str(number % 5)] for number in range(5000)]
    ids = [str(number) for number in range(5000)]
    scores = scores_of(labels)
    assert sorted({*scores}) == [-1, -0.5, 0, 0.5, 1]
    settings = Missing(rate=0.3, type="text", depends_on="label")
    for by_modality in (None, {"image": scores, "text": scores}):
        mask = draw_mask(ids, settings, by_modality).by_id()
        rates = {}
        for score in sorted({*scores}):
            rows = [sample_id for sample_id, of in zip(ids, scores, strict=True) if of == score]
            rates[score] = np.mean([not mask[sample_id][1] for sample_id in rows])
        if by_modality is None:
            assert max(rates.values()) - min(rates.values()) < 0.08  # four standard errors of a difference
        else:
            assert list(rates.values()) == sorted(rates.values())
            assert 3 < rates[1] / rates[-1] < 7.4  # the ratio of the weights, less as the draw uses samples up
        assert np.mean([*rates.values()]) == pytest.approx(0.3)


def test_scores_of_several_labels_and_of_none() -> None:
    one = scores_of([["a"], ["b"]])
    assert {*one} == {-1, 1}
    assert scores_of([["a"], ["b"], ["a", "b"], []]).tolist() == [*one, 0, 0]


@given(st.lists(st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=12), min_size=1, max_size=30))
def test_scores_are_means_to_the_last_bit(labels: list[list[str]]) -> None:
    of_class = {name: scores_of([[name], *labels])[0] for row in labels for name in row}
    assert scores_of(labels).tolist() == [
        float(np.mean([of_class[name] for name in row])) if row else 0 for row in labels
    ]


@given(st.lists(st.none() | st.integers(0, 9) | st.floats(0, 255), max_size=30))
def test_ranks_are_those_of_sorted_values(values: list[float | None]) -> None:
    known = sorted({value for value in values if value is not None})
    scores = {value: 2 * rank / max(len(known) - 1, 1) - 1 for rank, value in enumerate(known)}
    assert rank_scores(values).tolist() == [0.0 if value is None else scores[value] for value in values]


def test_ranks() -> None:
    assert rank_scores([5.0, None, 1.0, 3.0, 3.0]).tolist() == [1, 0, -1, 0, 0]
    assert rank_scores([2.0]).tolist() == [-1]
    assert rank_scores([]).tolist() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs either a rate or a table: set one of them"),
        ({"rate": 0.5, "table": "x.pt"}, "needs either a rate or a table"),
        ({"rate": 0.5, "codes": {0: "complete"}}, "has codes but no table"),
        ({"rate": 1.5}, "the rate in data.missing is 1.5"),
        ({"rate": float("nan")}, "the rate in data.missing is nan"),
        ({"rate": 0.5, "ratio": -1}, "the ratio in data.missing is -1"),
        ({"rate": 0.5, "seed": -1}, "the seed in data.missing is -1: give at least 0"),
    ],
)
def test_what_does_not_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        Missing(**settings)
