"""Features in memory: the same as those in files, bit by bit, on the device of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.cache.test_store import WIDTHS, encoded, keys, locations, opened, written
from fakes import grouped, tiny_image_encoder, tiny_text_encoder
from hypothesis import given
from hypothesis import strategies as st

from robusttune.data import ImageTextDataModule
from robusttune.data.cache import CachedModality, MemoryStore
from robusttune.data.cache.index import ABSENT
from robusttune.data.cache.memory import keep_in_memory
from robusttune.data.cache.store import Store
from robusttune.data.modalities import Texts
from robusttune.data.sources import Food101
from robusttune.types import Encoded

CPU = torch.device("cpu")


def same(found: Encoded, expected: Encoded) -> bool:
    pairs = zip(
        [found.pooled, *found.tokens, *found.mask], [expected.pooled, *expected.tokens, *expected.mask], strict=True
    )
    return all(a.dtype == b.dtype and torch.equal(a, b) and a.is_contiguous() == b.is_contiguous() for a, b in pairs)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=8),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    data=st.data(),
)
def test_memory_returns_what_the_files_return(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[tuple[int, int]], dtype: torch.dtype, data: st.DataObject
) -> None:
    """Values, padding and layout in memory, for any inputs in any order, also for none."""
    folder, names = tmp_path_factory.mktemp("store"), keys(len(lengths))
    written(folder, encoded(lengths, dtype), names)
    store = opened(folder, names)
    places = data.draw(st.permutations(locations(store, names)))
    kept = MemoryStore(store, places, CPU)
    order = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=12))
    found, expected = kept.gather(order), store.gather([places[i] for i in order])
    assert isinstance(found.values, Encoded)
    assert isinstance(expected.values, Encoded)
    assert same(found.values, expected.values)
    assert found.cut == expected.cut
    assert kept.most_bytes == store.most_bytes


def modality(store: Store, places: list[int]) -> CachedModality:
    raw: Texts = None  # type: ignore[assignment]  # It is asked for absent rows only.
    return CachedModality(raw, store, np.array(places).reshape(-1, 1))


def test_all_features_are_kept_or_none(tmp_path: Path) -> None:
    """A limit holds for all modalities together; inputs without features do not count, and shared ones count once."""
    written(tmp_path, encoded([(1, 2), (3, 1), (2, 2)]), keys(3))
    store = opened(tmp_path, keys(3))
    places = locations(store, keys(3))
    both = [modality(store, [places[0], ABSENT, places[2]]), modality(store, places[1:])]
    keep_in_memory(both, CPU, limit=3 * store.most_bytes - 1)
    assert all(each.store is store for each in both)
    keep_in_memory(both, CPU, limit=3 * store.most_bytes)
    assert all(isinstance(each.store, MemoryStore) for each in both)
    assert both[0].locations[1] == ABSENT


def test_a_batch_reads_the_noisy_variant_from_the_store_of_the_clean_one(tmp_path: Path) -> None:
    written(tmp_path, encoded([(1, 2), (3, 1), (2, 2), (1, 1)]), keys(4))
    store = opened(tmp_path, keys(4))
    places = locations(store, keys(4))
    clean, noisy = modality(store, [places[2], ABSENT, places[0]]), modality(store, [places[3], ABSENT, places[1]])
    keep_in_memory([clean, noisy], CPU)
    found = clean.collate([each.read(row, 0) for each in (clean, noisy) for row in (0, 2)])
    expected = store.gather([places[2], places[0], places[3], places[1]])
    assert isinstance(found.values, Encoded)
    assert isinstance(expected.values, Encoded)
    assert same(found.values, expected.values)


def test_features_are_kept_on_the_device_of_the_run(tmp_path: Path) -> None:
    written(tmp_path, encoded([(1, 2), (3, 1)]), keys(2))
    store = opened(tmp_path, keys(2))
    kept = MemoryStore(store, locations(store, keys(2)), torch.device("meta"))
    found = kept.gather([1, 0, 1]).values
    assert isinstance(found, Encoded)
    assert [part.shape for part in found.tokens] == [(3, 3, WIDTHS.layers[0]), (3, 2, WIDTHS.layers[1])]
    assert {part.device.type for part in (found.pooled, *found.tokens, *found.mask)} == {"meta"}


@pytest.mark.parametrize(("workers", "kind"), [(None, MemoryStore), (0, MemoryStore), (1, Store)])
def test_workers_that_were_asked_for_read_files(
    food101: Path, text_folder: Path, tmp_path: Path, workers: int | None, kind: type
) -> None:
    encoders = {"image_encoder": tiny_image_encoder(), "text_encoder": tiny_text_encoder(text_folder)}
    settings = {"folder": str(tmp_path), "workers": workers, "batch_size": 64}
    data = ImageTextDataModule(Food101(str(food101)), **encoders, **grouped(**settings))  # type: ignore[arg-type]
    data.setup("fit")
    data.fill_cache("fit", {name: encoder.load() for name, encoder in encoders.items()})
    for loader in (data.train_dataloader(), data.val_dataloader()):
        samples: Any = loader.dataset
        inputs = [*samples.images.values(), *samples.texts.values()]
        assert {type(each.store) for each in inputs} == {kind}
        assert loader.num_workers == (workers or 0)
