"""Batches of streamed samples, against those of the same samples in a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from fakes import NOISY, grouped, tiny_image_encoder, tiny_text_encoder
from tars import COLOURS, files_of, png, streamed, write_tar

from robusttune.corruption.missing import Missing, MissingBySplit, lost_at_random
from robusttune.data import (
    CacheSettings,
    ImageTextDataModule,
    LoaderSettings,
    ModalityDropout,
    Splits,
    TrainingSettings,
)
from robusttune.data.sources import HuggingFace, Source, Stream
from robusttune.data.streaming.training_stream import StreamedRow
from robusttune.encoders import Augmentation
from robusttune.errors import RobustTuneError
from robusttune.types import Batch, Draw

SIZES = [9, 14, 3, 12]


def module(source: Source, text_folder: Path, **changes: Any) -> ImageTextDataModule:
    settings = {"batch_size": 8, "workers": 0, "modality_dropout": ModalityDropout(0.0, 0.0)} | changes
    return ImageTextDataModule(source, tiny_image_encoder(), tiny_text_encoder(text_folder), **grouped(**settings))


def batches(data: ImageTextDataModule) -> list[Batch]:
    data.setup("fit")
    return [*data.train_dataloader()]


def ids(found: list[Batch]) -> list[str]:
    return [sample_id for batch in found for sample_id in batch.sample_id]


def as_table(folder: Path) -> HuggingFace:
    """The samples of `streamed` in a data set on the disk, with the ids that a stream gives them."""
    kinds = {"id": Value("string"), "png": ImageFeature(), "txt": Value("string"), "cls": Value("int64")}
    rows = []
    for number, (shard, row) in enumerate((shard, row) for shard, size in enumerate(SIZES) for row in range(size)):
        files = files_of(number)
        image = {"bytes": files["png"], "path": None} if "png" in files else None
        text = files["txt"].decode() if "txt" in files else None
        rows.append({"id": f"{shard}-{row}", "png": image, "txt": text, "cls": int(files["cls"])})
    whole = Dataset.from_list(rows, features=Features(kinds))
    DatasetDict({"train": whole, "validation": whole.select(range(6))}).save_to_disk(folder / "table")
    return HuggingFace(str(folder / "table"), image_column="png", text_column="txt", label_column="cls", id_column="id")


def test_streamed_samples_are_those_of_a_table(tmp_path: Path, text_folder: Path) -> None:
    """Pixels with augmentation and noise, texts with noise, modality dropout and labels, sample by sample."""
    changes = {"modality_dropout": ModalityDropout(0.3, 0.3), "noise": NOISY, "augmentation": Augmentation()}
    data = module(as_table(tmp_path), text_folder, **changes)
    data.setup("fit")
    known = data.train_dataloader().dataset
    by_id = {sample.sample_id: sample for sample in (known[Draw(0, row, True)] for row in range(sum(SIZES)))}
    for batch in batches(module(streamed(tmp_path, SIZES), text_folder, **changes)):
        expected = [by_id.pop(sample_id) for sample_id in batch.sample_id]
        assert batch.image_present.tolist() == [bool(sample.image) for sample in expected]
        assert batch.text_present.tolist() == [bool(sample.text) for sample in expected]
        pixels: Any = batch.images["clean"]
        assert torch.equal(pixels, torch.stack([sample.image["clean"] for sample in expected if sample.image]))
        tokens = data.preprocessing.tokenizer([sample.text["clean"] for sample in expected if sample.text])[0]
        texts: Any = batch.texts["clean"]
        assert torch.equal(texts.input_ids, tokens.input_ids)
        assert batch.label is not None
        assert [[label] for label in batch.label.tolist()] == [sample.labels for sample in expected]
    assert not by_id


@pytest.mark.parametrize("workers", [0, 2])
def test_each_sample_comes_once(tmp_path: Path, text_folder: Path, workers: int) -> None:
    found = batches(module(streamed(tmp_path, SIZES), text_folder, workers=workers))
    assert sorted(ids(found)) == sorted(f"{shard}-{row}" for shard, size in enumerate(SIZES) for row in range(size))
    assert all(batch.counted.all() for batch in found)
    for batch in found:
        for sample_id, image, text in zip(batch.sample_id, batch.image_present, batch.text_present, strict=True):
            shard, row = map(int, sample_id.split("-"))
            number = sum(SIZES[:shard]) + row
            assert (bool(image), bool(text)) == (number % 4 > 0, number % 5 > 0)


def test_facts_come_from_validation_samples(tmp_path: Path, text_folder: Path) -> None:
    facts = module(streamed(tmp_path, SIZES), text_folder).facts
    assert facts.class_names == ["0", "1", "2"]
    assert facts.class_frequencies == pytest.approx([1 / 3] * 3)
    assert facts.training_samples is None


def test_named_classes_keep_their_order(tmp_path: Path, text_folder: Path) -> None:
    (tmp_path / "classes.txt").write_text("2\n0\n1\n7\n")
    source = streamed(tmp_path, SIZES, Stream(classes=str(tmp_path / "classes.txt")))
    facts = module(source, text_folder).facts
    assert facts.class_names == ["2", "0", "1", "7"]
    assert facts.class_frequencies == pytest.approx([11 / 34, 11 / 34, 11 / 34, 1 / 34])


def parquet(folder: Path) -> HuggingFace:
    """A folder of Parquet files as the library writes them, with class names."""
    features = Features({"image": ImageFeature(), "text": Value("string"), "label": ClassLabel(names=[*COLOURS])})
    for split, numbers in {"train-0": range(10), "train-1": range(10, 30), "validation-0": range(40, 52)}.items():
        rows = [
            {"image": {"bytes": png(COLOURS[n % 3]), "path": None}, "text": f"thing {n}", "label": n % 3}
            for n in numbers
        ]
        Dataset.from_list(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return HuggingFace(str(folder), stream=Stream())


def test_parquet_files_of_a_folder(tmp_path: Path, text_folder: Path) -> None:
    data = module(parquet(tmp_path), text_folder)
    found = batches(data)
    assert data.facts.class_names == [*COLOURS]
    assert len({*ids(found)}) == 30
    for batch in found:
        assert batch.label is not None
        pixels: Any = batch.images["clean"]
        for image, label in zip(pixels, batch.label, strict=True):
            assert image[:, 0, 0].tolist() == {0: [255, 0, 0], 1: [0, 255, 0], 2: [0, 0, 255]}[int(label)]


def test_a_rate_of_missing_modalities_applies_to_each_sample(tmp_path: Path, text_folder: Path) -> None:
    protocol = Missing(rate=0.5, type="both")
    data = module(parquet(tmp_path), text_folder, missing=MissingBySplit(train=protocol))
    kinds = Counter[tuple[bool, bool]]()
    for batch in batches(data):
        lost = lost_at_random(batch.sample_id, protocol)
        assert (~lost[:, 0]).tolist() == batch.image_present.tolist()
        assert (~lost[:, 1]).tolist() == batch.text_present.tolist()
        kinds.update(zip(batch.image_present.tolist(), batch.text_present.tolist(), strict=True))
    assert {*kinds} == {(True, True), (True, False), (False, True)}


def test_losses_at_random_are_as_frequent_as_the_rate_and_nested() -> None:
    names = [str(number) for number in range(20_000)]
    lost = {rate: lost_at_random(names, Missing(rate=rate, ratio=0.3)) for rate in (0.2, 0.7)}
    for rate, found in lost.items():
        assert found.any(axis=1).mean() == pytest.approx(rate, abs=0.01)
        assert found[:, 0].sum() / found.sum() == pytest.approx(0.3, abs=0.02)
        assert not found.all(axis=1).any()
    assert (lost[0.7] | ~lost[0.2]).all()
    again = lost_at_random(names[::-1], Missing(rate=0.2, ratio=0.3))[::-1]
    assert (again == lost[0.2]).all()
    assert (lost_at_random(names, Missing(rate=0.2, ratio=0.3, seed=1)) != lost[0.2]).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_label_that_is_no_class(tmp_path: Path, text_folder: Path, workers: int) -> None:
    source = streamed(tmp_path, SIZES)
    write_tar(tmp_path / "train-01.tar", [{"cls": b"1", "txt": b"soup"}, {"cls": b"9", "txt": b"pie"}])
    with pytest.raises(RobustTuneError, match="1 have a label that training does not know .the first: '9' of '1-1'"):
        batches(module(source, text_folder, workers=workers))


def test_a_file_that_is_cut_off(tmp_path: Path, text_folder: Path) -> None:
    source = streamed(tmp_path, SIZES)
    path = tmp_path / "train-03.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(RobustTuneError, match="file 3 of 4 of webdataset, train cannot be read .*repair it, or try"):
        batches(module(source, text_folder))


def test_a_broken_image_ends_the_fit_as_in_a_table(tmp_path: Path, text_folder: Path) -> None:
    source = streamed(tmp_path, SIZES)
    write_tar(tmp_path / "train-02.tar", [{"cls": b"1", "png": b"no image", "txt": b"soup"}])
    data = module(source, text_folder)
    data.setup("fit")
    with pytest.raises(RobustTuneError, match="row 0 of file 2 of webdataset, train cannot be read .*: repair or"):
        [data.on_before_batch_transfer(batch, 0) for batch in data.train_dataloader()]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "splits": ({"splits": Splits(shots=4, subset=10)}, "data.splits.shots and data.splits.subset need all"),
    "missing": (
        {"missing": MissingBySplit(train=Missing(rate=0.5, depends_on="label"))},
        "data.missing.train.depends_on needs all",
    ),
    "cache": ({"cache": CacheSettings("here")}, "data.cache.folder needs all training samples at once"),
    "balance": ({"training": TrainingSettings(balance="balanced")}, "data.training.balance needs all"),
}


@pytest.mark.parametrize("name", [*REFUSED])
def test_settings_that_need_all_samples_are_named(tmp_path: Path, text_folder: Path, name: str) -> None:
    changes, expected = REFUSED[name]
    with pytest.raises(RobustTuneError, match=expected):
        ImageTextDataModule(
            streamed(tmp_path, SIZES),
            *(tiny_image_encoder(), tiny_text_encoder(text_folder)),
            loader=LoaderSettings(workers=0),
            **changes,
        )


def test_a_model_that_is_fitted_to_all_samples(tmp_path: Path, text_folder: Path) -> None:
    data = module(streamed(tmp_path, SIZES), text_folder)
    data.setup("fit")
    with pytest.raises(RobustTuneError, match="model.fusion is fitted to all training samples at once"):
        data.complete_dataloader()


def test_a_fit_on_a_table_does_not_go_on_with_a_stream(tmp_path: Path, text_folder: Path) -> None:
    sources = as_table(tmp_path), streamed(tmp_path, SIZES)
    for pair in (sources, sources[::-1]):
        first, second = (module(source, text_folder) for source in pair)
        batches(first)
        second.setup("fit")
        second.load_state_dict(first.state_dict())
        with pytest.raises(RobustTuneError, match="resume with the same data.source.stream"):
            second.train_dataloader()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"text_column": "caption"}, None),
        ({"text_column": "title"}, "no sample of webdataset, validation has a file that ends in title"),
        ({"image_column": "jpg"}, "no sample of webdataset, validation has a file that ends in jpg: set data.source"),
        ({"text_column": "json"}, "the files that end in json cannot be used as a column"),
        (
            {"multilabel": True},
            "the files that end in cls cannot be used as a column: .* several labels a list",
        ),
    ],
)
def test_endings_of_files_in_tars(
    tmp_path: Path, text_folder: Path, changes: dict[str, Any], error: str | None
) -> None:
    source = streamed(tmp_path, [2])
    samples = [{"cls": b"0", "png": png("red"), "caption": "süß".encode()}, {"cls": b"1", "txt": b"a", "json": b"{}"}]
    for name in ("train-00.tar", "val-0.tar"):
        write_tar(tmp_path / name, samples)
    data = module(replace(source, **changes), text_folder)
    if error is not None:
        with pytest.raises(RobustTuneError, match=error):
            batches(data)
        return
    rows = data.rows("val")
    assert rows is not None
    assert [rows.value("text", row) for row in range(2)] == ["süß", None]
    stream = data.source.training_stream
    assert stream is not None
    table, _ = stream.records([StreamedRow(0, row, cells) for row, cells in enumerate(stream.rows(0))])
    assert table["text"].to_pylist() == ["süß", None]


def test_ids_of_files_in_tars(tmp_path: Path, text_folder: Path) -> None:
    source = replace(streamed(tmp_path, [2]), id_column="id")
    for name, first in (("train-00.tar", 0), ("val-0.tar", 10)):
        write_tar(tmp_path / name, [files_of(k) | {"id": str(first + k).encode()} for k in (1, 2)])
    data = module(source, text_folder)
    assert sorted(ids(batches(data))) == ["1", "2"]
    rows = data.rows("val")
    assert rows is not None
    assert rows.value("id", 0) == "11"


def test_no_sample_at_all(tmp_path: Path, text_folder: Path) -> None:
    source = streamed(tmp_path, [1, 1])
    for name in ("train-00.tar", "train-01.tar"):
        write_tar(tmp_path / name, [])
    with pytest.raises(RobustTuneError, match="webdataset, train has no sample: give it some"):
        batches(module(source, text_folder))


def test_samples_of_one_modality_have_none_to_lose(tmp_path: Path, text_folder: Path) -> None:
    source = replace(streamed(tmp_path, SIZES), image_column=None)
    with pytest.raises(RobustTuneError, match="data.source has one modality"):
        module(source, text_folder, missing=MissingBySplit(train=Missing(rate=0.5, type="text")))


def test_settings_of_the_format_hold_for_all_splits(tmp_path: Path, text_folder: Path) -> None:
    """Those that a data set's own README gives."""
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  sep: ';'\n  data_files:\n"
        "  - {split: train, path: train.csv}\n  - {split: validation, path: val.csv}\n---\n"
    )
    for name in ("train", "val"):
        (tmp_path / f"{name}.csv").write_text("text;label\nsoup, hot;a\npie;b\n")
    data = module(HuggingFace(str(tmp_path), stream=Stream(), image_column=None), text_folder)
    assert len(ids(batches(data))) == 2
    rows = data.rows("val")
    assert rows is not None
    assert rows.value("text", 0) == "soup, hot"


def test_a_missing_column_is_named(tmp_path: Path, text_folder: Path) -> None:
    parquet(tmp_path)
    source = HuggingFace(str(tmp_path), stream=Stream(), text_column="title")
    with pytest.raises(RobustTuneError, match="has no column title .it has image, text, label"):
        batches(module(source, text_folder))


def test_a_data_set_on_the_disk_is_not_streamed(tmp_path: Path, text_folder: Path) -> None:
    Dataset.from_dict({"text": ["a"], "label": ["b"]}).save_to_disk(tmp_path / "own")
    source = HuggingFace(str(tmp_path / "own"), stream=Stream(), image_column=None)
    with pytest.raises(RobustTuneError, match="was made by save_to_disk and is on the disk already"):
        module(source, text_folder).setup("fit")


def test_files_that_do_not_exist(tmp_path: Path, text_folder: Path) -> None:
    files: dict[str, list[str] | str] = {"train": str(tmp_path / "t-{00..03}.tar"), "validation": "no.tar"}
    source = HuggingFace("webdataset", files=files, stream=Stream())
    with pytest.raises(RobustTuneError, match="webdataset cannot be loaded .*correct data.source.files"):
        module(source, text_folder).setup("fit")
