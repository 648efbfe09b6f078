"""The wording of a sample's text and classes, and the selection of samples for pictures."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from robusttune.evaluation.sample_text import evenly_spaced, text_or_none


def test_a_blank_text_is_shown_as_none() -> None:
    assert text_or_none(" \n ") == text_or_none("") == text_or_none(None) == "no text"
    assert text_or_none(" a  red\n\nbowl ") == "a red bowl"


@given(st.integers(0, 300), st.integers(1, 40))
def test_selected_samples_are_spread_over_all(total: int, count: int) -> None:
    rows = evenly_spaced(total, count)
    assert rows == sorted({*rows})
    assert len(rows) == min(total, count)
    assert all(0 <= row < total for row in rows)
    gaps = [right - left for left, right in itertools.pairwise(rows)]
    assert not gaps or max(gaps) - min(gaps) <= 1
