"""How many loader workers there are, and how far ahead they load."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from robusttune.data import workers as module
from robusttune.data.workers import Workers, limited_by_cores, limited_by_memory
from robusttune.errors import RobustTuneError

MB = 1_000_000


@pytest.fixture
def shared_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    return lambda free: monkeypatch.setattr(module, "free_shared_memory", lambda: free)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (None, Workers(8, 4)),  # no such file system
        (2 * 34 * MB, Workers(8, 4)),  # 32 ahead and 2 in use, of each of two loaders
        (2 * 34 * MB - 1, Workers(8, 3)),
        (2 * 10 * MB, Workers(8, 1)),
        (2 * 10 * MB - 1, Workers(7, 1)),
        (2 * 3 * MB, Workers(1, 1)),
        (2 * 3 * MB - 1, Workers(0, 1)),
        (0, Workers(0, 1)),
    ],
)
def test_batches_fit_into_shared_memory(
    shared_memory: Callable[[int | None], None],
    caplog: pytest.LogCaptureFixture,
    free: int | None,
    expected: Workers,
) -> None:
    shared_memory(free)
    assert limited_by_memory(Workers(8, 4), MB, 2, required=False, what="1 train samples") == expected
    assert ("docker run --shm-size" in caplog.text) == (expected != Workers(8, 4))


def test_fewer_workers_than_were_asked_for_are_refused(shared_memory: Callable[[int | None], None]) -> None:
    shared_memory(20 * MB)
    assert limited_by_memory(Workers(8, 4), MB, 2, required=True, what="1 train samples") == Workers(8, 1)
    shared_memory(20 * MB - 1)
    with pytest.raises(
        RobustTuneError, match="/dev/shm has 20.0 MB free, .* takes 1.0 MB, of which 8 .*: give it more"
    ):
        limited_by_memory(Workers(8, 4), MB, 2, required=True, what="1 train samples")
    assert limited_by_memory(Workers(0, 4), MB, 2, required=True, what="1 train samples") == Workers(0, 4)


def test_so_many_workers_a_core(caplog: pytest.LogCaptureFixture) -> None:
    assert [limited_by_cores(number, 2, say=True) for number in (0, 8, 9, 500)] == [0, 8, 8, 8]
    assert caplog.text.count("are started, 4 for each of 2 cores") == 2
    assert limited_by_cores(500, 2, say=False) == 8
    assert caplog.text.count("are started") == 2
