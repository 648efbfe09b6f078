"""The ledger of published numbers is consistent in itself, and says what is not known."""

from __future__ import annotations

from statistics import harmonic_mean, mean

import pytest

from robusttune.protocols.kinds import AXES
from robusttune.protocols.ledger import AVERAGE, FOLDER, Published, load

KINDS = sorted(path.stem for path in FOLDER.glob("*.csv"))
EVERY = [(kind, published) for kind in KINDS for published in load(kind)]


def test_every_file_is_for_a_kind_of_summary() -> None:
    assert {"base_to_new", "transfer", "missing_rates"} == {*KINDS} <= {*AXES}
    assert load("few_shot") == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_says_where_it_comes_from(kind: str) -> None:
    for published in load(kind):
        assert published.origin in ("paper", "from memory", "note by others", "re-run by others")
        assert published.source
        assert published.setting
        assert published.value is None or 0 < published.value < 100
        assert (published.dataset == AVERAGE) == bool(published.over)
    keys = [(p.method, p.dataset, p.condition, p.metric, p.source, p.precision) for p in load(kind)]
    assert len(keys) == len({*keys})


def test_what_is_not_verified_is_empty() -> None:
    empty = {(published.method, published.source) for _, published in EVERY if published.value is None}
    assert {("MoLT", "MoLT (arXiv 2406.06048)"), ("MMRL++", "MMRL++")} <= empty
    assert all(
        published.note == "not found" or published.method in ("DCP", "plain LoRA", "MoRA")
        for _, published in EVERY
        if published.value is None
    )
    assert not any(published.value for _, published in EVERY if published.method == "MoLT")


def test_harmonic_means_follow_from_base_and_new_accuracy() -> None:
    entries = {(p.source, p.method, p.dataset, p.metric): p for p in load("base_to_new") if p.value is not None}
    checked = 0
    for (*place, metric), published in entries.items():
        if metric == "harmonic_mean":
            of_place = {name: p.value for (*other, name), p in entries.items() if other == place}
            parts = [of_place["base_accuracy"] or 0, of_place["new_accuracy"] or 0]
            difference = abs(harmonic_mean(parts) - (published.value or 0))
            assert (difference < 0.011) == bool(published.averaging), place  # the parts are rounded
            checked += 1
    assert checked == 12 + 6


@pytest.mark.parametrize(("source", "method"), [("MMRL (CVPR 2025)", "MMRL"), ("AlignedNorm's results file", "MMRL++")])
def test_averages_follow_from_the_data_sets(source: str, method: str) -> None:
    for metric in ("base_accuracy", "new_accuracy"):
        own = [p for p in load("base_to_new") if (p.source, p.method, p.metric) == (source, method, metric)]
        (average,) = [p for p in own if p.dataset == AVERAGE]
        parts = [p.value for p in own if p.dataset in average.over]
        assert len(parts) == 11
        assert average.value == pytest.approx(mean(value for value in parts if value is not None), abs=0.006)


def test_the_transfer_average_is_over_the_ten_targets() -> None:
    own = [p for p in load("transfer") if p.origin == "paper"]
    (average,) = [p for p in own if p.dataset == AVERAGE]
    parts = [p.value for p in own if p.dataset in average.over and p.value is not None]
    assert len(parts) == 10
    assert average.value == pytest.approx(mean(parts), abs=0.006)


def published_number(**fields: object) -> Published:
    (entry,) = [p for p in load("base_to_new") if all(getattr(p, name) == value for name, value in fields.items())]
    return entry


def test_within_the_spread_is_only_said_where_a_spread_is_known() -> None:
    imagenet = published_number(dataset="ImageNet", metric="base_accuracy", source="MMRL (CVPR 2025)")
    assert (imagenet.value, imagenet.spread) == (77.90, 0.08)
    assert [imagenet.has_within_spread(value) for value in (77.82, 77.98, 77.81, 77.99)] == [True, True, False, False]
    dtd = published_number(dataset="DTD", metric="base_accuracy", source="MMRL (CVPR 2025)")
    assert dtd.spread is None
    assert dtd.has_within_spread(dtd.value or 0) is None


def test_names_of_data_sets_are_compared_without_case_and_hyphens() -> None:
    entry = next(p for p in load("transfer") if p.dataset == "ImageNet-A")
    assert entry.is_for("imagenet_a", ())
    assert not entry.is_for("ImageNet", ())
    average = next(p for p in load("transfer") if p.dataset == AVERAGE)
    assert average.is_for(AVERAGE, tuple(reversed(average.over)))
    assert not average.is_for(AVERAGE, average.over[1:])
