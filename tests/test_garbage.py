"""The garbage collector is off while the command line is imported, and on afterwards."""

from __future__ import annotations

import gc

from robusttune.garbage import uncollected


def test_the_collector_pauses_also_when_an_import_fails() -> None:
    assert gc.isenabled()
    try:
        with uncollected():
            assert not gc.isenabled()
            raise ImportError
    except ImportError:
        assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
