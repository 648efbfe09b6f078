"""A cache of a few inputs, against a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import NOISY, grouped, tiny_image_encoder, tiny_text_encoder

from robusttune.data import ImageTextDataModule
from robusttune.data.cache import FeatureCache
from robusttune.data.sources import Food101
from robusttune.encoders import FrozenEncoder
from robusttune.planning import sampled_cache
from robusttune.planning.sampled_cache import SampledCache
from robusttune.types import Encoded

Make = Callable[..., ImageTextDataModule]


@pytest.fixture(scope="module")
def encoders(text_folder: Path) -> dict[str, FrozenEncoder]:
    return {"image_encoder": tiny_image_encoder().load(), "text_encoder": tiny_text_encoder(text_folder).load()}


@pytest.fixture
def make(food101: Path, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a data module whose cache is in the test's folder; sampling stops as early as it can."""
    monkeypatch.setattr(sampled_cache, "SECONDS", 1e-9)

    def made(**changes: Any) -> ImageTextDataModule:
        settings = {"workers": 0, "batch_size": 16, "folder": str(tmp_path / "cache"), **changes}
        encoders = tiny_image_encoder(), tiny_text_encoder(text_folder)
        return ImageTextDataModule(Food101(str(food101)), *encoders, **grouped(**settings))

    return made


def sampled(data: ImageTextDataModule, encoders: dict[str, FrozenEncoder], folder: Path, *stages: str) -> SampledCache:
    """The cache that stood in while the stages were set up."""
    assert isinstance(data.feature_cache, FeatureCache)
    folder.mkdir()
    cache = data.feature_cache = SampledCache(data.feature_cache, folder)
    for stage in stages or ("fit",):
        data.setup(stage)
        data.fill_cache(stage, encoders)
    return cache


def filled(data: ImageTextDataModule, encoders: dict[str, FrozenEncoder], *stages: str) -> None:
    for stage in stages:
        data.setup(stage)
        data.fill_cache(stage, encoders)


def size_on_disk(folder: Path, what: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{what}-*/*/*.safetensors"))


@pytest.mark.parametrize("changes", [{}, {"noise": NOISY, "views": 3}, {"dtype": "float32"}])
def test_size_is_that_on_disk(
    make: Make, encoders: dict[str, FrozenEncoder], tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Texts of a split that another has, too, count once."""
    found = sampled(make(**changes), encoders, tmp_path / "few", "fit", "test").found
    assert not (tmp_path / "cache").exists()
    filled(make(**changes), encoders, "fit", "test")
    for what in ("images", "texts"):
        told = sum(part.bytes for part in found if part.what == what)
        assert told == pytest.approx(size_on_disk(tmp_path / "cache", what), rel=0.05)
        assert sum(part.missing for part in found if part.what == what) == sum(
            part.inputs for part in found if part.what == what
        )


def test_what_is_there_is_not_missing(make: Make, encoders: dict[str, FrozenEncoder], tmp_path: Path) -> None:
    """Nor is anything changed in the cache that is looked at."""
    filled(make(), encoders, "fit")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    found = sampled(make(), encoders, tmp_path / "few", "fit", "test").found
    assert [part.missing for part in found[:2]] == [0, 0]
    assert [part.seconds for part in found[:2]] == [0, 0]
    assert found[2].missing == found[2].inputs > 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == before
    other = sampled(make(dtype="float32"), encoders, tmp_path / "others").found  # features of other settings
    assert other[0].missing == other[0].inputs


def test_batches_are_as_a_real_cache_makes_them(make: Make, encoders: dict[str, FrozenEncoder], tmp_path: Path) -> None:
    """Of all samples, in shape and kind; the numbers are those of a few."""
    standing_in, real = make(), make()
    sampled(standing_in, encoders, tmp_path / "few")
    filled(real, encoders, "fit")
    ours, theirs = list(standing_in.train_dataloader()), list(real.train_dataloader())
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.sample_id == b.sample_id
        assert isinstance(a.images.inputs, Encoded)
        assert isinstance(b.images.inputs, Encoded)
        assert [t.shape for t in a.images.inputs.tokens] == [t.shape for t in b.images.inputs.tokens]
        assert a.images.inputs.pooled.dtype == b.images.inputs.pooled.dtype == torch.bfloat16
        assert torch.equal(a.text_present, b.text_present)
    distinct = {tuple(row.tolist()) for batch in ours for row in batch.images.inputs.pooled}  # type: ignore[union-attr]
    assert len(distinct) <= sampled_cache.FIRST * (1 + sampled_cache.GROWTH)


def test_operations_of_an_input_are_those_of_the_encoder(
    make: Make, encoders: dict[str, FrozenEncoder], tmp_path: Path
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    images = sampled(make(), encoders, tmp_path / "few").found[0]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoders["image_encoder"](torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert images.flops == counter.get_total_flops() > 0
