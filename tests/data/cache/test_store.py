"""Shards and stores: what is put in comes out, and what was damaged does not."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from robusttune.data.cache import store as store_module
from robusttune.data.cache.index import ABSENT
from robusttune.data.cache.keys import key_array
from robusttune.data.cache.shard import Row, Shard, rows_of, shard_name, write_shard
from robusttune.data.cache.store import Store
from robusttune.errors import RobustTuneError
from robusttune.types import Encoded, Widths

WIDTHS = Widths((3, 5), 4)


def encoded(lengths: list[tuple[int, int]], dtype: torch.dtype = torch.float32) -> Encoded:
    """Random features with so many real tokens in the two layers, and something else where there is padding."""
    masks = [torch.arange(max(column)) < torch.tensor(column).unsqueeze(1) for column in zip(*lengths, strict=True)]
    tokens = [torch.randn(*mask.shape, width) for mask, width in zip(masks, WIDTHS.layers, strict=True)]
    return Encoded(torch.randn(len(lengths), 4), tokens, masks).map(
        lambda t: t if t.dtype == torch.bool else t.to(dtype)
    )


def keys(count: int, first: int = 0) -> list[bytes]:
    return [bytes([first + i] * 16) for i in range(count)]


def shard_path(folder: Path, names: list[bytes]) -> Path:
    return folder / f"{shard_name(key_array(names))}.safetensors"


def written(folder: Path, values: Encoded, names: list[bytes], fingerprint: str = "ours") -> Path:
    """A shard of these features."""
    folder.mkdir(exist_ok=True)
    path = shard_path(folder, names)
    write_shard(path, fingerprint, list(rows_of(values, names, [False] * len(names), values.pooled.dtype)))
    return path


def altered(path: Path) -> bytes:
    """The content of a shard with another number in the first features."""
    at, content = int(Shard.read(path, "ours", WIDTHS).positions[0]), path.read_bytes()
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def opened(folder: Path, names: list[bytes]) -> Store:
    store = Store(folder, "ours", WIDTHS)
    store.refresh(key_array(names), threads=2)
    return store


def locations(store: Store, names: list[bytes]) -> list[int]:
    found: list[int] = store.locations(key_array(names)).tolist()
    return found


def has(store: Store, name: bytes) -> bool:
    return locations(store, [name]) != [ABSENT]


def assert_holds(store: Store, names: list[bytes], expected: Encoded) -> None:
    found = store.gather(locations(store, names)).values
    assert isinstance(found, Encoded)
    assert torch.equal(found.pooled, expected.pooled)
    for tokens, mask, like, real in zip(found.tokens, found.mask, expected.tokens, expected.mask, strict=True):
        assert torch.equal(mask, real)
        assert torch.equal(tokens[mask], like[real])
        assert not tokens[~mask].any()


@given(
    lengths=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=8),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    data=st.data(),
)
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[tuple[int, int]], dtype: torch.dtype, data: st.DataObject
) -> None:
    """In any order, over several shards, as often as it is asked for, padded to the longest asked for."""
    folder, values, names = tmp_path_factory.mktemp("store"), encoded(lengths, dtype), keys(len(lengths))
    cut = data.draw(st.integers(1, len(names)))
    for part in (slice(0, cut), slice(cut, None)):
        if names[part]:
            written(folder, values.map(lambda t, part=part: t[part]), names[part])  # type: ignore[misc]
    store = opened(folder, names)
    order = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=12))
    wanted = values.map(lambda t: t[order])
    for mask, tokens in zip(wanted.mask, range(2), strict=True):
        longest = int(mask.sum(1).max())
        wanted.mask[tokens], wanted.tokens[tokens] = mask[:, :longest], wanted.tokens[tokens][:, :longest]
    assert_holds(store, [names[i] for i in order], wanted)
    assert_holds(pickle.loads(pickle.dumps(store)), [names[i] for i in order], wanted)


def test_whether_an_input_was_cut_is_kept(tmp_path: Path) -> None:
    row = next(rows_of(encoded([(1, 2)]), keys(1), [True], torch.float32))
    path = shard_path(tmp_path, [*keys(1), b"b" * 16])
    write_shard(path, "ours", [row, Row(b"b" * 16, row.numbers, row.counts, False)])
    store = opened(tmp_path, [*keys(1), b"b" * 16])
    assert store.gather(locations(store, [b"b" * 16, *keys(1)])).cut == [False, True]


def test_nothing_may_be_asked_for(tmp_path: Path) -> None:
    written(tmp_path, encoded([(1, 2)]), keys(1))
    assert len(opened(tmp_path, keys(1)).gather([]).values) == 0
    assert len(opened(tmp_path / "none", keys(1)).gather([]).values) == 0


def test_what_is_not_there_has_no_place(tmp_path: Path) -> None:
    written(tmp_path, encoded([(1, 2)]), keys(1))
    store = opened(tmp_path, keys(3))
    assert [place == ABSENT for place in locations(store, keys(3))] == [False, True, True]
    assert not locations(store, [])


def test_shards_are_safetensors(tmp_path: Path) -> None:
    path = written(tmp_path, encoded([(1, 2), (2, 1)], torch.bfloat16), keys(2))
    with safe_open(path, "pt") as shard:
        assert shard.get_tensor("numbers").dtype == torch.bfloat16
        assert shard.get_tensor("counts").tolist() == [[1, 2], [2, 1]]


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = encoded([(2, 2)] * 4)
    for i, key in enumerate(keys(4)):
        written(tmp_path, values.map(lambda t, i=i: t[i : i + 1]), [key])  # type: ignore[misc]
    monkeypatch.setattr(store_module, "OPEN", 2)
    store = opened(tmp_path, keys(4))
    for _ in range(3):
        assert_holds(store, keys(4), values)
        assert len(store._files) == 2


def test_a_shard_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, encoded([(2, 2)]), keys(1))
    store = opened(tmp_path, keys(1))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RobustTuneError, match="was changed while it was read: start again"):
        store.gather(locations(store, keys(1)))


def damages(path: Path) -> dict[str, bytes]:
    """A shard's bytes with damage of every kind."""
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    flipped = {f"byte {at}": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))}
    torn = {f"torn at {at}": whole[:at] for at in range(0, len(whole), 7)}
    zeros = {"zeros": bytes(len(whole)), "tail of zeros": whole[: start + 60] + bytes(len(whole) - start - 60)}
    return {**flipped, **torn, **zeros}


def test_damage_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever byte it is in: the shard is not used, said, and removed so that it is built anew."""
    path = written(tmp_path, encoded([(2, 3), (3, 1)]), keys(2))
    whole = path.read_bytes()
    for name, content in damages(path).items():
        path.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            store = opened(tmp_path, keys(2))
        assert not has(store, keys(1)[0]), name
        assert f"{path} of the feature cache cannot be used" in caplog.text, name
        assert not path.exists(), name
    path.write_bytes(whole)
    assert has(opened(tmp_path, keys(2)), keys(1)[0])


def test_a_shard_that_cannot_be_read_now_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says of it is no damage."""
    path = written(tmp_path, encoded([(2, 3)]), keys(1))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        with pytest.raises(PermissionError):
            opened(tmp_path, keys(1))
    assert has(opened(tmp_path, keys(1)), keys(1)[0])


def test_features_of_something_else_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, encoded([(2, 3)]), keys(1), fingerprint="theirs")
    with caplog.at_level(logging.WARNING):
        assert not has(opened(tmp_path, keys(1)), keys(1)[0])
    assert "it holds features of something else" in caplog.text


def test_a_shard_that_nobody_wants_is_not_checked(tmp_path: Path) -> None:
    """A folder may hold much more than this data."""
    path = written(tmp_path, encoded([(2, 3)]), keys(1))
    path.write_bytes(altered(path))
    store = opened(tmp_path, keys(1, first=7))
    assert path.exists()
    assert store.most_bytes == 0


def test_a_shard_with_a_damaged_key_is_found_though_nobody_asks_for_that_key(tmp_path: Path) -> None:
    """Jobs take the file of that name for the features of the right keys."""
    path = written(tmp_path, encoded([(2, 3)]), keys(1))
    whole = path.read_bytes()
    at = whole.index(keys(1)[0], 8 + int.from_bytes(whole[:8], "little"))
    path.write_bytes(whole[: at + 15] + b"x" + whole[at + 16 :])
    assert not has(opened(tmp_path, keys(1)), keys(1)[0])
    assert not path.exists()


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robusttune.data.cache.shard.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path, encoded([(1, 1)]), keys(1))
    assert not list(tmp_path.iterdir())
