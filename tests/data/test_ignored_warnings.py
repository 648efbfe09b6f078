"""Ignored warnings: threads that overlap, and errors, leave the filters of the process as they were."""

from __future__ import annotations

import warnings
from contextlib import ExitStack

import pytest

from robusttune.data.ignored_warnings import ignored_warnings


def test_overlapping_contexts_restore_the_filters() -> None:
    before = warnings.filters[:]
    first, second = ExitStack(), ExitStack()
    first.enter_context(ignored_warnings())
    second.enter_context(ignored_warnings())
    first.close()
    with warnings.catch_warnings(record=True) as recorded:
        warnings.warn("while the second still reads", stacklevel=1)
    assert recorded == []
    second.close()
    assert warnings.filters == before


def test_an_error_restores_the_filters() -> None:
    before = warnings.filters[:]
    with pytest.raises(OSError, match="damaged"), ignored_warnings():
        raise OSError("damaged")
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="afterwards"):
        warnings.warn("afterwards", stacklevel=1)
