"""Rows with several images: the mean of their features, with and without a cache, and when some are unreadable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from fakes import grouped, tiny_image_encoder, tiny_text_encoder, write_table
from PIL import Image

from robusttune.corruption.noise import ImageNoise, NoiseBySplit, SplitNoise
from robusttune.data import ImageTextDataModule
from robusttune.data.row_images import row_images
from robusttune.data.sources import HuggingFace, Table
from robusttune.data.verify import verify
from robusttune.encoders import Augmentation, CLIPImageEncoder, CLIPTextEncoder, FrozenEncoder
from robusttune.errors import RobustTuneError
from robusttune.models.zero_shot import ZeroShotClassifier
from robusttune.types import Batch, Encoded, Facts, ImageSets, Tokens, Variants, View

Make = Callable[..., ImageTextDataModule]
PHOTOS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def encoders(text_folder: Path) -> dict[str, FrozenEncoder]:
    return {"image_encoder": tiny_image_encoder().load(), "text_encoder": tiny_text_encoder(text_folder).load()}


@pytest.fixture
def make(tmp_path: Path, text_folder: Path) -> Make:
    """Makes a data module whose test split has the given cells; the photos a, b and c exist."""
    for seed, name in enumerate(PHOTOS):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")

    def made(cells: list[Any], several: Any = "mean", **settings: Any) -> ImageTextDataModule:
        rows = [{"image": cell, "text": "soup", "label": "xy"[n % 2]} for n, cell in enumerate(cells)]
        tables: dict[str, Any] = {split: str(write_table(tmp_path, split, rows)) for split in ("train", "val", "test")}
        source = Table(**tables, several_images=several)
        shared: dict[str, Any] = {"workers": 0, "batch_size": 8, "dtype": "float32"} | settings
        return ImageTextDataModule(source, tiny_image_encoder(), tiny_text_encoder(text_folder), **grouped(**shared))

    return made


def only_batch(data: ImageTextDataModule, encoders: dict[str, FrozenEncoder], stage: str = "test") -> Batch:
    data.setup(stage)
    data.fill_cache(stage, encoders)
    loader = data.test_dataloader() if stage == "test" else data.train_dataloader()
    (batch,) = loader
    return batch


def features(batch: Batch, encoders: dict[str, FrozenEncoder]) -> Encoded:
    return encoders["image_encoder"].encode(batch.images["clean"], batch.image_present)


def files(*names: str) -> list[str]:
    return [f"{name}.png" for name in names]


def parts_of(encoded: Encoded) -> list[torch.Tensor]:
    return [encoded.pooled, *encoded.tokens]


@pytest.mark.parametrize("cached", [False, True])
def test_features_are_the_mean_over_the_images(
    make: Make, encoders: dict[str, FrozenEncoder], tmp_path: Path, cached: bool
) -> None:
    """In any order, next to rows with one image, which have the features that they have by themselves."""
    single = features(only_batch(make([*files(*PHOTOS)]), encoders), encoders)
    cells = [files("a", "b"), "b.png", files("b", "a"), files("c", "c"), files("c", "a", "b"), None]
    batch = only_batch(make(cells, folder=str(tmp_path / "cache") if cached else None), encoders)
    assert isinstance(batch.images["clean"], Encoded if cached else ImageSets)
    assert batch.image_present.tolist() == [True] * 5 + [False]
    assert batch.unreadable == []
    found = features(batch, encoders)
    for ours, (a, b, c) in zip(parts_of(found), parts_of(single), strict=True):
        expected = torch.stack([(a + b) / 2, b, (a + b) / 2, c, (a + b + c) / 3])
        torch.testing.assert_close(ours[:5], expected, rtol=1e-5, atol=1e-5)
    assert all(mask[:5].all() for mask in found.mask)


def test_the_first_image_is_the_default(make: Make, encoders: dict[str, FrozenEncoder]) -> None:
    cells: list[Any] = [files("b", "a", "gone"), "c.png"]
    first, alone = only_batch(make(cells, "first"), encoders), only_batch(make(files("b", "c")), encoders)
    assert Table.several_images == "first"
    assert torch.equal(first.images["clean"], alone.images["clean"])  # type: ignore[arg-type]


def test_a_cache_has_the_mean_once_for_any_order(
    make: Make, encoders: dict[str, FrozenEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, forward = [], type(encoders["image_encoder"]).forward
    monkeypatch.setattr(
        type(encoders["image_encoder"]), "forward", lambda self, x: encoded.append(len(x)) or forward(self, x)
    )
    only_batch(make([files("a", "b"), files("b", "a"), files("a", "b")], folder=str(tmp_path / "cache")), encoders)
    assert encoded == [1, 1]  # one pair


@pytest.mark.parametrize("random", ["noise", "augmentation"])
def test_each_image_has_its_own_randomness(make: Make, encoders: dict[str, FrozenEncoder], random: str) -> None:
    """The first has that of a row with one image."""
    noise = NoiseBySplit(train=SplitNoise(ImageNoise(["gaussian"], [3])))
    settings: dict[str, Any] = {"modality_dropout": None}
    settings |= {"noise": noise} if random == "noise" else {"augmentation": Augmentation()}
    one = only_batch(make(["a.png", None], **settings), encoders, "fit").images["clean"]
    two = only_batch(make([files("a", "a"), None], **settings), encoders, "fit").images["clean"]
    assert isinstance(two, ImageSets)
    assert torch.equal(two.pixels[:, 0], one)  # type: ignore[arg-type]
    assert not torch.equal(two.pixels[:, 0], two.pixels[:, 1])


def test_noise_of_cached_rows(make: Make, encoders: dict[str, FrozenEncoder], tmp_path: Path) -> None:
    noise = {"noise": NoiseBySplit(test=SplitNoise(ImageNoise(["gaussian"], [3])))}
    cells = [files("a", "b"), files("b", "a"), "a.png"]
    plain = features(only_batch(make(cells, **noise), encoders), encoders)
    cached = features(only_batch(make(cells, **noise, folder=str(tmp_path / "cache")), encoders), encoders)
    torch.testing.assert_close(cached.pooled, plain.pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cached", [False, True])
def test_the_mean_is_over_the_readable_images(
    make: Make, encoders: dict[str, FrozenEncoder], tmp_path: Path, cached: bool
) -> None:
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:100])
    cells = [files("a", "broken", "b"), files("broken", "gone"), "a.png", files("gone", "b")]
    folder = str(tmp_path / "cache") if cached else None
    for _ in range(2):  # the second time, features come from the cache
        batch = only_batch(make(cells, unreadable="absent", folder=folder), encoders)
        assert batch.image_present.tolist() == [True, False, True, True]
        assert len(batch.unreadable) == 4
    found = features(batch, encoders).pooled
    a, b = features(only_batch(make(files("a", "b")), encoders), encoders).pooled
    torch.testing.assert_close(found[[0, 2, 3]], torch.stack([(a + b) / 2, a, b]), rtol=1e-5, atol=1e-5)
    with pytest.raises(RobustTuneError, match=r"2 image files of the 4 test samples do not exist, .*gone.png"):
        only_batch(make(cells, folder=folder), encoders)


@pytest.mark.parametrize("stored", [False, True])
def test_an_unreadable_image_among_several_ends_a_run(
    make: Make, encoders: dict[str, FrozenEncoder], tmp_path: Path, stored: bool
) -> None:
    """Also if an earlier run, which took it as absent, has stored the mean of the others."""
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:100])
    folder = str(tmp_path / "cache")
    cells = [files("a", "broken"), files("b", "c")]
    if stored:
        only_batch(make(cells, unreadable="absent", folder=folder), encoders)
    data = make(cells, folder=folder)
    with pytest.raises(RobustTuneError, match=r"1 of 4 image files cannot be read: .*broken.png"):
        data.on_before_batch_transfer(only_batch(data, encoders), 0)


def test_zero_shot_averages_unit_features(clip_folder: Path) -> None:
    """Equal images have the logits of one of them, and two images those of the direction between both."""
    clip: dict[str, Any] = {"name": str(clip_folder), "first_layer": 2}
    settings = CLIPImageEncoder(**clip), CLIPTextEncoder(**clip)
    classifier = ZeroShotClassifier(*settings, Facts(["red", "blue"], [0.5, 0.5], multilabel=False))
    size = settings[0].preprocessing().size
    a, b = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)

    def logits(images: Any, rows: int) -> torch.Tensor:
        no_text = Tokens(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.bool))
        flags = torch.ones(rows, dtype=torch.bool)
        batch = Batch(
            *(Variants(["clean"], images), Variants(["clean"], no_text), flags, ~flags, None, flags),
            *([str(row) for row in range(rows)], "test", [], []),
        )
        with torch.no_grad():
            return classifier.logits(batch, [View(text=None)])[0]

    sets = ImageSets(torch.stack([torch.stack([a, a]), torch.stack([a, b])]), torch.tensor([2, 2]))
    found, single = logits(sets, 2), logits(torch.stack([a, b]), 2)
    torch.testing.assert_close(found[0], single[0], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        unit = classifier.image_encoder(torch.stack([a, b])).pooled
        middle = torch.nn.functional.normalize(unit.mean(0, keepdim=True), dim=-1)
        expected = classifier.cosine_logits(middle, classifier.prompts().untouched)[0]
    torch.testing.assert_close(found[1].log_softmax(0), expected.log_softmax(0), rtol=1e-4, atol=1e-4)


def test_columns_and_lists_of_them(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"front": "a.png", "back": ["", "b.png"], "label": "x"},
        {"front": None, "back": ["c.png"], "label": "x"},
        {"front": "", "back": None, "label": "x"},
    ]
    table = str(write_table(tmp_path, "train", rows))
    source = Table(train=table, image_column=["front", "back"], text_column=None, several_images="mean")
    records = source.read("train")
    assert records is not None
    names = [[Path(name).name for name in row] for row in row_images(records)]
    assert names == [["a.png", "b.png"], ["c.png"], []]


@pytest.mark.usefixtures("make")
def test_images_of_hugging_face(tmp_path: Path) -> None:
    """All images of lists and of several columns, without blanks."""
    content = {name: (tmp_path / f"{name}.png").read_bytes() for name in PHOTOS}
    kinds = {"front": List(ImageFeature()), "back": Value("binary"), "label": Value("string")}
    cells = {
        "front": [[{"bytes": content["a"]}, None, {"bytes": content["b"]}], [], None],
        "back": [content["c"], content["a"], None],
        "label": ["x"] * 3,
    }
    Dataset.from_dict(cells, features=Features(kinds)).save_to_disk(tmp_path / "set")
    source = HuggingFace(str(tmp_path / "set"), image_column=["front", "back"], text_column=None, several_images="mean")
    records = source.read("train")
    assert records is not None
    found = [[source.images.content(name) for name in names] for names in row_images(records)]
    assert found == [[content["a"], content["b"], content["c"]], [content["a"]], []]


def test_verify_reads_all_images(make: Make, tmp_path: Path) -> None:
    """A sample with the same images in another order is a repeated one."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    data = make([files("a", "b"), files("a", "broken"), files("b", "a"), files("a", "gone"), files("a", "c")])
    found = verify(data, None, threads=1, watch=lambda images, total: images)
    assert found.images["distinct"] == 5
    assert found.details["missing"] == [str(tmp_path / "gone.png")]
    assert "broken.png" in found.details["broken"][0]
    assert found.splits["train"]["repeated_images"] == 1


@pytest.mark.parametrize("source", [Table, HuggingFace])
def test_another_setting_is_refused(tmp_path: Path, source: Any) -> None:
    place = {"train": str(write_table(tmp_path, "train", []))} if source is Table else {"path": str(tmp_path)}
    with pytest.raises(RobustTuneError, match="several_images is 'median': set it to first or mean"):
        source(**place, several_images="median")
