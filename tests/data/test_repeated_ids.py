"""Repeated ids, and the hashes that they are found by."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robusttune.data.sources import repeated_ids
from robusttune.data.sources.repeated_ids import hashes_of, repeated

chunks = st.lists(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=3) | st.sampled_from(["a" * 30, "a" * 31]), max_size=5)
)


@given(chunks)
def test_repeats_are_those_of_a_dictionary(ids: list[list[str]]) -> None:
    first: dict[str, int] = {}
    expected = []
    for row, name in enumerate(name for chunk in ids for name in chunk):
        if first.setdefault(name, row) != row:
            expected.append((row, first[name]))
    for at_once in (2, 1 << 23):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(repeated_ids, "AT_ONCE", at_once)
            assert repeated(pa.chunked_array(ids, pa.string())) == expected


def test_equal_hashes_of_different_ids_are_no_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_ids, "hashes_of", lambda texts: np.zeros(len(texts), np.uint64))
    assert repeated(pa.chunked_array([["a", "b"], ["c", "b"]])) == [(3, 1)]


def test_hashes_differ_and_do_not_depend_on_the_place() -> None:
    ids = pa.array([f"product-{n:012d}" for n in range(100_000)] + ["", "\0", "\0\0"])
    hashes = hashes_of(ids)
    assert len(np.unique(hashes)) == len(ids)
    assert (hashes_of(ids.slice(500, 100)) == hashes[500:600]).all()
    low = np.bincount((hashes & np.uint64(255)).astype(int), minlength=256)
    assert low.max() < 1.3 * low.mean()
