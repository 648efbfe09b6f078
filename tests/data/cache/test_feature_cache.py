"""The cache in the data module: the same batches, whatever happened to the folder before."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import NOISY, grouped, tiny_image_encoder, tiny_text_encoder, write_image, write_table
from two_ranks import in_two_ranks

from robusttune.corruption.noise import NoiseBySplit, SplitNoise
from robusttune.data import ImageTextDataModule, ModalityDropout
from robusttune.data.cache import build as build_module
from robusttune.data.cache import feature_cache
from robusttune.data.cache.fingerprint import fingerprint
from robusttune.data.cache.rounds import Rounds
from robusttune.data.cache.shard import Shard, read_features, write_shard
from robusttune.data.sources import Food101, Source, Table
from robusttune.encoders import Augmentation, Encoder, FrozenEncoder
from robusttune.errors import RobustTuneError
from robusttune.types import Batch, Encoded, Variants

Encoders = dict[str, FrozenEncoder]
DROPOUT = ModalityDropout(image_dropout=0.3, text_dropout=0.3)


@pytest.fixture(scope="module")
def encoders(text_folder: Path) -> Encoders:
    return {"image_encoder": tiny_image_encoder().load(), "text_encoder": tiny_text_encoder(text_folder).load()}


@pytest.fixture
def make(food101: Path, text_folder: Path, tmp_path: Path) -> Callable[..., ImageTextDataModule]:
    """Makes a data module that has its cache in the test's folder."""

    def made(source: Source | None = None, **changes: Any) -> ImageTextDataModule:
        shared: dict[str, Any] = {"workers": 0, "modality_dropout": DROPOUT, "dtype": "float32", "batch_size": 16}
        encoders = {"image_encoder": tiny_image_encoder(), "text_encoder": tiny_text_encoder(text_folder)}
        settings = encoders | shared | {"folder": str(tmp_path / "cache")} | changes
        return ImageTextDataModule(source or Food101(str(food101)), **grouped(**settings))

    return made


def epochs(data: ImageTextDataModule, encoders: Encoders, count: int = 1, stage: str = "fit") -> list[list[Batch]]:
    """The training batches of some epochs, with what the encoders make of them where the cache has not done it."""
    data.setup(stage)
    data.fill_cache(stage, encoders)
    loader = data.train_dataloader() if stage == "fit" else data.test_dataloader()
    found = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        found.append([encoded(batch, encoders) for batch in loader])
    return found


def encoded(batch: Batch, encoders: Encoders) -> Batch:
    batch.images = Variants(["clean"], encoders["image_encoder"].encode(batch.images["clean"], batch.image_present))
    batch.texts = Variants(["clean"], encoders["text_encoder"].encode(batch.texts["clean"], batch.text_present))
    return batch


def flat(found: list[list[Batch]]) -> list[Batch]:
    return [batch for batches in found for batch in batches]


def assert_same(found: list[list[Batch]], expected: list[list[Batch]]) -> None:
    for ours, theirs in zip(flat(found), flat(expected), strict=True):
        assert ours.sample_id == theirs.sample_id
        assert ours.cut == theirs.cut
        for name in ("image_present", "text_present", "label", "counted"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
        for modality, present in (("images", ours.image_present), ("texts", ours.text_present)):
            mine, other = getattr(ours, modality)["clean"], getattr(theirs, modality)["clean"]
            torch.testing.assert_close(mine.pooled[present], other.pooled[present], rtol=1e-5, atol=1e-5)
            for a, b, mask, real in zip(mine.tokens, other.tokens, mine.mask, other.mask, strict=True):
                assert torch.equal(mask[present], real[present])
                torch.testing.assert_close(a[present][mask[present]], b[present][real[present]], rtol=1e-5, atol=1e-5)


def shards(folder: Path) -> dict[Path, int]:
    """Shards, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


@pytest.fixture
def inputs(encoders: Encoders, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by how many inputs an encoder is given, each time."""
    seen: list[int] = []
    for encoder in encoders.values():
        forward = encoder.forward
        monkeypatch.setattr(encoder, "forward", lambda x, forward=forward: [seen.append(len(x)), forward(x)][1])
    return seen


@pytest.fixture
def from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every batch from files, as if the features did not fit into memory."""
    monkeypatch.setattr(feature_cache, "keep_in_memory", lambda *_: None)


def test_batches_are_the_same_as_without(make: Callable[..., Any], encoders: Encoders) -> None:
    """Samples, presence, cut texts and features, epoch by epoch."""
    short = tiny_text_encoder(Path(encoders["text_encoder"].settings.name), max_length=5)
    settings = {"text_encoder": short}
    assert_same(epochs(make(**settings), encoders, 2), epochs(make(folder=None, **settings), encoders, 2))


@pytest.mark.usefixtures("from_files")
def test_files_that_do_not_fit_into_memory(make: Callable[..., Any], encoders: Encoders) -> None:
    assert_same(epochs(make(), encoders, 2), epochs(make(folder=None), encoders, 2))


def test_with_workers(make: Callable[..., Any], encoders: Encoders) -> None:
    assert_same(epochs(make(workers=2), encoders), epochs(make(folder=None), encoders))


def test_bfloat16_is_near(make: Callable[..., Any], encoders: Encoders) -> None:
    found = epochs(make(dtype="bfloat16"), encoders)[0][0].images["clean"]
    exact = epochs(make(folder=None), encoders)[0][0].images["clean"]
    assert isinstance(found, Encoded)
    assert isinstance(exact, Encoded)
    assert found.pooled.dtype == torch.float32
    torch.testing.assert_close(found.pooled, exact.pooled, rtol=2**-8, atol=1e-6)


def test_each_input_is_encoded_once(make: Callable[..., Any], encoders: Encoders, inputs: list[int]) -> None:
    """Also if it is there twice; a second run, another stage and another order encode only what is new."""
    expected = sum(len(set(column)) for column in _columns(make(), "train", "val"))
    epochs(make(), encoders, 2)
    assert sum(inputs) == expected
    inputs.clear()
    epochs(make(seed=1), encoders)
    assert not inputs
    epochs(make(), encoders, stage="test")
    assert sum(inputs) == sum(len(set(column)) for column in _columns(make(), "test"))


def _columns(data: ImageTextDataModule, *splits: Any) -> list[list[str | bytes]]:
    tables = [table for split in splits if (table := data.records(split)) is not None]
    return [
        [
            Path(x).read_bytes() if name == "image" else x
            for table in tables
            for x in table[name].drop_null().to_pylist()
        ]
        for name in ("image", "text")
    ]


@pytest.mark.usefixtures("from_files")
def test_what_is_dropped_is_not_read(
    make: Callable[..., Any], encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(modality_dropout=ModalityDropout(image_dropout=1, text_dropout=0))
    epochs(data, encoders)
    read: list[Any] = []
    patched = "robusttune.data.cache.store.read_features"
    monkeypatch.setattr(patched, lambda *args: [read.append(args), read_features(*args)][1])
    batches = list(data.train_dataloader())
    with_text = [row for batch in batches for row in batch.text_present.tolist()]
    assert sum(with_text) > 80
    assert sum(len(batch.images["clean"]) for batch in batches) == len(with_text) - sum(with_text)
    assert len(read) == len(with_text)  # one modality of each sample


SETTINGS: dict[str, Callable[[Path], dict[str, Encoder]]] = {
    "grid": lambda folder: {"image_encoder": tiny_image_encoder(grid=1)},
    "layers": lambda folder: {"image_encoder": tiny_image_encoder(layers=[1, 2])},
    "size": lambda folder: {"image_encoder": tiny_image_encoder(size=48)},
    "crop": lambda folder: {"image_encoder": tiny_image_encoder(crop=0.5)},
    "mean": lambda folder: {"image_encoder": tiny_image_encoder(mean=(0.4, 0.5, 0.5))},
    "model": lambda folder: {"image_encoder": tiny_image_encoder(name="test_vit2")},
    "depth": lambda folder: {"text_encoder": tiny_text_encoder(folder, depth=1, layers=[1])},
    "pooling": lambda folder: {"text_encoder": tiny_text_encoder(folder, pooling="class")},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_features_of_other_settings_are_not_used(
    make: Callable[..., Any], encoders: Encoders, text_folder: Path, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And it is said why."""
    epochs(make(), encoders)
    changes = SETTINGS[setting](text_folder)
    others = encoders | {name: settings.load() for name, settings in changes.items()}
    with caplog.at_level(logging.WARNING):
        assert_same(epochs(make(**changes), others), epochs(make(folder=None, **changes), others))
    assert "the feature cache has features of other settings" in caplog.text


def test_the_folder_of_an_encoder_may_move(
    make: Callable[..., Any], encoders: Encoders, text_folder: Path, tmp_path: Path, inputs: list[int]
) -> None:
    epochs(make(), encoders)
    inputs.clear()
    moved = shutil.copytree(text_folder, tmp_path / "elsewhere")
    epochs(make(text_encoder=tiny_text_encoder(moved)), encoders)
    assert not inputs
    config = moved / "config.json"
    config.write_text(config.read_text().replace('"gelu"', '"relu"'))
    changed = tiny_text_encoder(moved)
    epochs(make(text_encoder=changed), encoders | {"text_encoder": changed.load()})
    assert sum(inputs) == 0  # of the old encoder; the new one has made its own
    assert len(list((tmp_path / "cache").glob("texts-*"))) == 2


def test_a_build_that_was_killed_goes_on(
    make: Callable[..., Any], encoders: Encoders, tmp_path: Path, inputs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed without warning; what it had written is not computed again."""
    monkeypatch.setattr(build_module, "SHARD", 1 << 13)
    folder, slow = tmp_path / "cache", write_shard

    def slowly(*args: Any) -> None:
        slow(*args)
        time.sleep(0.1)

    def build() -> None:
        torch.set_num_threads(1)
        monkeypatch.setattr(build_module, "write_shard", slowly)
        epochs(make(), encoders)

    process = multiprocessing.get_context("fork").Process(target=build)
    process.start()
    deadline = time.monotonic() + 60
    while len(shards(folder)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
    process.join()
    before = shards(folder)
    assert 3 <= len(before) < 20
    assert_same(epochs(make(), encoders), epochs(make(folder=None), encoders))
    assert before.items() <= shards(folder).items()


def test_what_was_damaged_is_built_anew(
    make: Callable[..., Any], encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[int]
) -> None:
    monkeypatch.setattr(build_module, "SHARD", 1 << 14)
    epochs(make(), encoders)
    everything = sum(inputs)
    torn, altered, *others = shards(tmp_path / "cache")
    torn.write_bytes(torn.read_bytes()[:-100])
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    inputs.clear()
    assert_same(epochs(make(), encoders), epochs(make(folder=None), encoders))
    before = inputs.copy()
    inputs.clear()
    epochs(make(folder=None), encoders)
    assert 0 < sum(before) - sum(inputs) < everything / 2
    assert len(others) > 2


def test_two_jobs_fill_one_folder(
    make: Callable[..., Any], encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "SHARD", 1 << 13)

    def job(queue: Any) -> None:
        torch.set_num_threads(1)
        assert_same(epochs(make(), encoders), epochs(make(folder=None), encoders))
        queue.put("done")

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    jobs = [context.Process(target=job, args=(queue,)) for _ in range(2)]
    for process in jobs:
        process.start()
    for process in jobs:
        process.join(120)
    assert [process.exitcode for process in jobs] == [0, 0]
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_what_another_job_has_computed_in_the_meantime_is_not_computed_again(
    make: Callable[..., Any], encoders: Encoders, inputs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also within a round: here, another job fills the folder right after the first chunks were distributed."""
    monkeypatch.setattr(build_module, "SHARD", 1 << 13)
    epochs(make(folder=str(tmp_path / "theirs")), encoders)
    inputs.clear()
    next_round = Rounds.next_round

    def overtaken(self: Rounds, reports: Any) -> Any:
        work = next_round(self, reports)
        leave = shutil.ignore_patterns("index.arrow")  # which this job has mapped
        shutil.copytree(tmp_path / "theirs", tmp_path / "ours", ignore=leave, dirs_exist_ok=True)
        return work

    monkeypatch.setattr(Rounds, "next_round", overtaken)
    found = epochs(make(folder=str(tmp_path / "ours")), encoders)
    assert not inputs
    assert_same(found, epochs(make(folder=None), encoders))


@pytest.mark.slow
def test_jobs_that_fill_one_folder_may_be_killed(
    make: Callable[..., Any], encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four at a time, and in the middle of writing, too: whatever is there is whole, and goes on being used."""
    monkeypatch.setattr(build_module, "SHARD", 1 << 13)
    folder, rng = tmp_path / "cache", random.Random(0)
    context = multiprocessing.get_context("fork")

    def job() -> None:
        torch.set_num_threads(1)
        monkeypatch.setattr("robusttune.paths.os.fsync", lambda _: time.sleep(0.05))  # as slow as a disk
        epochs(make(), encoders)

    def started() -> list[Any]:
        jobs = [context.Process(target=job) for _ in range(4)]
        for process in jobs:
            process.start()
        return jobs

    for _ in range(3):
        for process in started():
            before, deadline = len(shards(folder)), time.monotonic() + 60
            while len(shards(folder)) == before and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            process.join()
        for path in shards(folder):
            store = path.parents[1]
            about = json.loads((store / "about.json").read_text())
            encoder = encoders["image_encoder" if store.name.startswith("images") else "text_encoder"]
            Shard.read(path, fingerprint(about), encoder.widths).verify()
    assert list(folder.rglob("*.partial"))
    left = shards(folder)
    jobs = started()
    for process in jobs:
        process.join(120)
    assert [process.exitcode for process in jobs] == [0] * 4
    whole = shards(folder)
    assert left.items() < whole.items()
    assert_same(epochs(make(), encoders), epochs(make(folder=None), encoders))
    assert shards(folder) == whole


def test_ranks_share_the_work(make: Callable[..., Any], encoders: Encoders, inputs: list[int], tmp_path: Path) -> None:
    def job(rank: int) -> int:
        data = make()
        data.setup("fit")
        data.fill_cache("fit", encoders)
        return sum(inputs)

    first, second = in_two_ranks(job)
    data = make()
    expected = sum(len(set(column)) for column in _columns(data, "train", "val"))
    assert first + second == expected
    assert abs(first - second) <= 4
    inputs.clear()
    found = epochs(data, encoders)
    assert not inputs
    assert_same(found, epochs(make(folder=None), encoders))


def pictures(folder: Path) -> Table:
    """Twelve images of one colour each, half of them red, in a table."""
    rows = []
    for i in range(12):
        path = write_image(folder / "data" / f"{i}.bmp", colour=("red", "blue")[i % 2], size=(8 + i, 8))
        rows.append({"image": path.name, "text": f"soup {i}", "label": "ab"[i % 2]})
    return Table(train=str(write_table(folder / "data", "train", rows)))


def test_a_changed_image_is_found(
    make: Callable[..., Any], encoders: Encoders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Under the same name, of the same size, with the old time of modification."""
    source = pictures(tmp_path)
    epochs(make(source), encoders)
    path = tmp_path / "data/0.bmp"
    before = path.stat()
    write_image(path, colour="lime", size=(8, 8))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with caplog.at_level(logging.WARNING):
        assert_same(epochs(make(source), encoders), epochs(make(source, folder=None), encoders))
    assert f"image files have changed: 1, the first is {path}" in caplog.text


def test_images_are_not_read_to_find_that_they_have_not_changed(
    make: Callable[..., Any], encoders: Encoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures(tmp_path)
    monkeypatch.setattr("robusttune.data.cache.digests.SETTLED", -1)  # as if they had been there for long
    epochs(make(source), encoders)
    monkeypatch.setattr("robusttune.data.cache.digests.hashlib.file_digest", lambda *_: pytest.fail("it was read"))
    epochs(make(source), encoders)


def test_a_damaged_memory_of_images_does_no_harm(make: Callable[..., Any], encoders: Encoders, tmp_path: Path) -> None:
    source = pictures(tmp_path)
    epochs(make(source), encoders)
    (tmp_path / "cache/files.arrow").write_bytes(b"nothing of the kind")
    assert_same(epochs(make(source), encoders), epochs(make(source, folder=None), encoders))


@pytest.mark.parametrize("policy", ["error", "absent"])
def test_unreadable_images(make: Callable[..., Any], encoders: Encoders, tmp_path: Path, policy: str) -> None:
    source = pictures(tmp_path)
    for number in (3, 8):
        (tmp_path / f"data/{number}.bmp").write_bytes(b"no image")
    if policy == "error":
        with pytest.raises(RobustTuneError, match=r"2 of 12 image files cannot be read: .*3\.bmp.*8\.bmp"):
            epochs(make(source), encoders)
        return
    found = epochs(make(source, unreadable="absent", modality_dropout=ModalityDropout(0, 0)), encoders, 2)
    plain = epochs(make(source, unreadable="absent", modality_dropout=ModalityDropout(0, 0), folder=None), encoders, 2)
    assert_same(found, plain)
    for ours, theirs in zip(flat(found), flat(plain), strict=True):
        assert ours.unreadable == theirs.unreadable


def test_views(make: Callable[..., Any], encoders: Encoders, inputs: list[int]) -> None:
    """The first epochs are those of a run without cache; then they come again, each with dropout of its own."""
    settings: dict[str, Any] = {"noise": NOISY, "modality_dropout": ModalityDropout(), "augmentation": Augmentation()}
    assert_same(epochs(make(views=2, **settings), encoders, 2), epochs(make(folder=None, **settings), encoders, 2))
    inputs.clear()
    first, second, third = epochs(make(views=2, **settings, batch_size=200), encoders, 3)
    assert not inputs
    assert not torch.equal(first[0].image_present, third[0].image_present)
    seen = [
        {i: x for i, x, has in zip(b.sample_id, b.images["clean"].pooled, b.image_present, strict=True) if has}  # type: ignore[union-attr]
        for (b,) in (first, second, third)
    ]
    assert all(torch.equal(seen[2][i], x) for i, x in seen[0].items() if i in seen[2])
    assert not any(torch.equal(seen[1][i], x) for i, x in seen[0].items() if i in seen[1])


@pytest.mark.parametrize("column", ["image_column", "text_column"])
def test_data_of_one_modality(make: Callable[..., Any], encoders: Encoders, tmp_path: Path, column: str) -> None:
    pictures(tmp_path)
    source = Table(train=str(tmp_path / "data/train.jsonl"), **{column: None})  # type: ignore[arg-type]
    assert_same(epochs(make(source), encoders), epochs(make(source, folder=None), encoders))


def test_noise_of_other_code_is_another_input(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> list[bytes | None]:
        data = make(noise=NOISY, views=1)
        data.setup("fit")
        images = data._datasets["train"].images["clean"]
        names = data._datasets["train"].records.column("image").drop_null().to_pylist()
        rows = [(row, 0) for row in range(len(images)) if images.has(row)]
        found: list[bytes | None] = images.keys(rows, dict.fromkeys(names, b"content"))
        return found

    first = keys()
    assert keys() == first
    monkeypatch.setattr("robusttune.data.image_modality.noise_version", lambda: "another")
    assert not {*keys()} & {*first}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "augmentation": ({"augmentation": Augmentation()}, "data.training.augmentation makes? new inputs in every epoch"),
    "noise": ({"noise": NoiseBySplit(SplitNoise(NOISY.train.image))}, "data.noise.train.image makes new inputs"),
    "words": ({"noise": NoiseBySplit(SplitNoise(text=NOISY.train.text))}, "data.noise.train.text makes new inputs"),
    "views of nothing": ({"folder": None, "views": 2}, "data.cache.views is 2, and there is no cache"),
    "no views": ({"views": 0}, "data.cache.views is 0: give at least 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_cached_is_refused(make: Callable[..., Any], case: str) -> None:
    settings, message = REFUSED[case]
    with pytest.raises(RobustTuneError, match=message):
        make(**settings)


def test_no_room(make: Callable[..., Any], encoders: Encoders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Found before anything is computed."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(RobustTuneError, match=r"features of 96 images take 2.* kB, and .*cache has 1.0 kB free: give"):
        epochs(make(), encoders)
    assert not shards(tmp_path)


def test_a_disk_that_forgets(make: Callable[..., Any], encoders: Encoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "write_shard", lambda *_: None)
    with pytest.raises(RobustTuneError, match="are not found afterwards: check the disk"):
        epochs(make(), encoders)


def test_a_disk_that_fills_up(
    make: Callable[..., Any], encoders: Encoders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was written stays, and the next run goes on."""
    monkeypatch.setattr(build_module, "SHARD", 1 << 14)
    write = write_shard
    written: list[Path] = []

    def fail(path: Path, *args: Any) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *args)
        written.append(path)

    with monkeypatch.context() as full:
        full.setattr(build_module, "write_shard", fail)
        with pytest.raises(RobustTuneError, match=r"cache .* cannot be written \(No space left on device\)"):
            epochs(make(), encoders)
    assert sorted(shards(tmp_path)) == sorted(written)
    assert_same(epochs(make(), encoders), epochs(make(folder=None), encoders))


@pytest.mark.parametrize("where", ["file", "below a file"])
def test_a_place_that_is_no_folder(make: Callable[..., Any], encoders: Encoders, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("mine")
    place = tmp_path / ("file" if where == "file" else "file/cache")
    with pytest.raises(RobustTuneError, match=r"the feature cache .* cannot be written \(.*\)"):
        epochs(make(folder=str(place)), encoders)
    assert (tmp_path / "file").read_text() == "mine"


def test_auto_is_in_the_users_cache(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache = make(folder="auto").feature_cache
    assert cache is not None
    assert cache.root == tmp_path / "home/robusttune/features"
