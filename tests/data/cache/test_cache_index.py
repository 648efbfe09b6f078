"""The index of a store: a file that spares reading the shards, and never changes what is found in them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from data.cache.test_store import (
    WIDTHS,
    altered,
    assert_holds,
    encoded,
    has,
    keys,
    locations,
    opened,
    shard_path,
    written,
)
from hypothesis import given
from hypothesis import strategies as st

from robusttune.data.cache import index as index_module
from robusttune.data.cache.index import ABSENT, Index
from robusttune.data.cache.keys import first_occurrences, key_array, search
from robusttune.data.cache.shard import Shard
from robusttune.data.cache.shard_folder import INDEX
from robusttune.data.cache.store import Store
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded

SMALL_KEYS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30)  # so that many have an equal half


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files count as if they had been there for long, so that the index remembers their state."""
    monkeypatch.setattr(index_module, "SETTLED", -1)


def saved(folder: Path, count: int = 3) -> tuple[list[bytes], list[Encoded]]:
    """Write shards of two inputs each, and their index; return the keys, and the features of each shard."""
    names, values = keys(2 * count), [encoded([(2, 3), (2, 3)]) for _ in range(count)]
    for i, features in enumerate(values):
        written(folder, features, names[2 * i : 2 * i + 2])
    opened(folder, names).save()
    return names, values


def joined(values: list[Encoded]) -> Encoded:
    parts = zip(*[[v.pooled, *v.tokens, *v.mask] for v in values], strict=True)
    pooled, *rest = [torch.cat(part) for part in parts]
    return Encoded(pooled, rest[:2], rest[2:])


@given(SMALL_KEYS, SMALL_KEYS)
def test_search_finds_what_a_dictionary_finds(listed: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> None:
    """Also keys of which one half is that of another key."""
    ordered = sorted({*listed})
    array = np.array(ordered, np.uint64).reshape(-1, 2)
    found = search(array[:, 0], array[:, 1], np.array(wanted, np.uint64).reshape(-1, 2))
    expected = {key: at for at, key in enumerate(ordered)}
    assert found.tolist() == [expected.get(key, -1) for key in wanted]


@given(SMALL_KEYS)
def test_first_occurrences(listed: list[tuple[int, int]]) -> None:
    expected = [at for at, key in enumerate(listed) if key not in listed[:at]]
    assert first_occurrences(np.array(listed, np.uint64).reshape(-1, 2)).tolist() == expected


def test_a_later_run_does_not_read_the_shards_to_find_the_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, values = saved(tmp_path)
    monkeypatch.setattr(Shard, "read", lambda *_: pytest.fail("it was read"))
    monkeypatch.setattr(Shard, "verify", lambda *_: pytest.fail("it was compared with its checksums"))
    store = opened(tmp_path, names)
    assert store.index.is_mapped
    assert_holds(store, names, joined(values))


def test_new_shards_are_added_and_those_that_are_gone_left_out(tmp_path: Path) -> None:
    names, values = saved(tmp_path)
    new, more = keys(2, first=9), encoded([(2, 3), (2, 3)])
    written(tmp_path, more, new)
    shard_path(tmp_path, names[2:4]).unlink()
    store = opened(tmp_path, [*names, *new])
    assert [has(store, name) for name in [*names, *new]] == [True] * 2 + [False] * 2 + [True] * 4
    for _ in range(2):
        assert_holds(store, [*new, *names[:2], *names[4:]], joined([more, values[0], values[2]]))
        store.save()
    assert store.index.is_mapped


def test_a_shard_that_has_changed_is_checked_again(tmp_path: Path) -> None:
    names, _ = saved(tmp_path)
    path = shard_path(tmp_path, names[0:2])
    path.write_bytes(altered(path))
    store = opened(tmp_path, names)
    assert [has(store, name) for name in names] == [False] * 2 + [True] * 4
    assert not path.exists()


def test_an_unsettled_shard_is_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was written just now could change without another time of change."""
    monkeypatch.setattr(index_module, "SETTLED", 10**18)
    names, _ = saved(tmp_path)
    checked: list[Path] = []
    verify = Shard.verify
    monkeypatch.setattr(Shard, "verify", lambda self: [checked.append(self.path), verify(self)][1])
    opened(tmp_path, names)
    assert len(checked) == 3


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    """Whatever byte it is in, without a word, and with the same result."""
    names, values = saved(tmp_path)
    path = tmp_path / INDEX
    whole = path.read_bytes()
    torn = [whole[:at] for at in range(0, len(whole), 97)]
    flipped = [whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :] for at in range(0, len(whole), 13)]
    unused = 0
    for content in [b"", b"nothing of the kind", bytes(len(whole)), whole + b"more", *torn, *flipped]:
        path.write_bytes(content)
        unused += Index.load(path, "ours", 2) is None
        store = opened(tmp_path, names)
        assert_holds(store, names, joined(values))
    assert unused > len(torn) + len(flipped) / 2
    store.save()
    assert store.index.is_mapped
    assert Index.load(path, "ours", 2) is not None
    assert Index.load(path, "theirs", 2) is None


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, values = saved(tmp_path)
    (tmp_path / INDEX).unlink()
    store = opened(tmp_path, names)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("robusttune.paths.os.fsync", full)
        store.save()
    assert not (tmp_path / INDEX).exists()
    assert not [*tmp_path.glob(".*")]
    assert_holds(store, names, joined(values))
    assert_holds(pickle.loads(pickle.dumps(store)), names, joined(values))


@pytest.mark.parametrize("what", ["replaced", "gone"])
def test_another_process_finds_the_same_when_the_index_was_replaced(tmp_path: Path, what: str) -> None:
    """Such as a loader worker that starts while another job adds shards, which changes their numbers."""
    names, values = saved(tmp_path)
    store = opened(tmp_path, names)
    assert store.index.is_mapped
    sent = pickle.dumps(store)
    assert len(sent) < 4000
    places = locations(store, names)
    if what == "gone":
        (tmp_path / INDEX).unlink()
    else:
        written(tmp_path, encoded([(2, 3), (2, 3)]), [b"\0" * 15 + b"\1", b"\0" * 15 + b"\2"])
        other = Store(tmp_path, "ours", WIDTHS)
        (tmp_path / INDEX).unlink()
        other.refresh(key_array(names), threads=1)
        other.save()
        assert locations(other, names) != places
    received = pickle.loads(sent)
    assert_holds(received, names, joined(values))
    assert locations(received, names) == places


def test_a_shard_that_another_job_computed_again_is_used(tmp_path: Path) -> None:
    names, values = saved(tmp_path)
    store = opened(tmp_path, names)
    path = shard_path(tmp_path, names[0:2])
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert_holds(store, names, joined(values))


@pytest.mark.parametrize("damage", ["altered", "of another size", "gone"])
def test_damage_after_the_check_is_found_before_the_features_are_used(tmp_path: Path, damage: str) -> None:
    names, values = saved(tmp_path)
    store = opened(tmp_path, names)
    path = shard_path(tmp_path, names[0:2])
    content = altered(path)
    path.unlink()
    if damage == "altered":
        path.write_bytes(content)
    elif damage == "of another size":  # a whole shard, but another one
        written(tmp_path, encoded([(1, 1), (1, 1)]), names[:2])
    assert_holds(store, names[2:], joined(values[1:]))
    with pytest.raises(
        RobustTuneError, match=f"{path} of the feature cache was changed while it was read: start again"
    ):
        store.gather(locations(store, names[:1]))
    assert path.exists() == (damage == "of another size")
    assert has(opened(tmp_path, names), names[0]) == (damage == "of another size")


def test_jobs_that_save_at_once_leave_a_whole_index(tmp_path: Path) -> None:
    """Each adds shards of its own and saves; whichever index stays, all features are found."""
    names, values = saved(tmp_path)

    def job(number: int) -> None:
        for i in range(10):
            own = [bytes([100 + number, i, j]) + bytes(13) for j in range(2)]
            written(tmp_path, encoded([(1, 2), (2, 1)]), own)
            store = opened(tmp_path, own)
            store.save()
            assert ABSENT not in locations(store, [*own, *names])
        os._exit(0)

    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=job, args=(number,)) for number in range(3)]
    for process in jobs:
        process.start()
    for process in jobs:
        process.join(60)
    assert [process.exitcode for process in jobs] == [0] * 3
    assert Index.load(tmp_path / INDEX, "ours", 2) is not None
    every = [bytes([100 + number, i, j]) + bytes(13) for number in range(3) for i in range(10) for j in range(2)]
    store = opened(tmp_path, [*names, *every])
    assert ABSENT not in locations(store, [*names, *every])
    assert_holds(store, names, joined(values))
