"""The data module: splits, labels, batches, what cannot be read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import NOISY, grouped, tiny_image_encoder, tiny_text_encoder, write_image, write_table

from robusttune.corruption.noise import ImageNoise, NoiseBySplit, SplitNoise, TextNoise
from robusttune.data import ImageTextDataModule, ModalityDropout, Splits
from robusttune.data.sampler import ResumableSampler
from robusttune.data.sources import Food101, Source, Table
from robusttune.encoders import Augmentation
from robusttune.errors import RobustTuneError
from robusttune.types import Batch, Facts, Tokens

CLEAN = ModalityDropout(image_dropout=0.0, text_dropout=0.0)


def module(source: Source, text_folder: Path, **changes: Any) -> ImageTextDataModule:
    settings = {"batch_size": 8, "workers": 0, "modality_dropout": CLEAN} | changes
    return ImageTextDataModule(source, tiny_image_encoder(), tiny_text_encoder(text_folder), **grouped(**settings))


def batches(data: ImageTextDataModule, split: str = "train") -> list[Batch]:
    data.setup({"train": "fit", "val": "fit"}.get(split, split))
    return list(getattr(data, f"{split}_dataloader")())


def table_of(folder: Path, count: int = 20, **extra: Any) -> Table:
    """A table of two classes, every third image absent, every fourth text blank."""
    rows = []
    for i in range(count):
        image = "" if i % 3 == 0 else write_image(folder / f"{i}.png", colour="red" if i % 2 else "blue").name
        rows.append({"image": image, "text": "" if i % 4 == 0 else f"soup {i}", "label": "odd" if i % 2 else "even"})
    return Table(train=str(write_table(folder, "train", rows)), **extra)


def test_splits_are_stratified_disjoint_and_complete(food101: Path, text_folder: Path) -> None:
    data = module(Food101(str(food101)), text_folder, splits=Splits(0.25))
    train, val = (data.records(split) for split in ("train", "val"))
    assert train is not None
    assert val is not None
    assert not set(train["id"].to_pylist()) & set(val["id"].to_pylist())
    assert len(train) + len(val) == 96
    assert sorted(name for names in val["labels"].to_pylist() for name in names) == sorted(data.facts.class_names * 2)
    other = module(Food101(str(food101)), text_folder, splits=Splits(0.25), seed=1).records("val")
    assert other is not None
    assert other["id"] != val["id"]


def test_facts(food101: Path, text_folder: Path) -> None:
    facts = module(Food101(str(food101)), text_folder).facts
    assert facts.class_names == sorted(facts.class_names)
    assert len(facts.class_names) == 12
    assert sum(facts.class_frequencies) == pytest.approx(1)
    assert not facts.multilabel


def test_a_subset_keeps_the_classes(food101: Path, text_folder: Path) -> None:
    data = module(Food101(str(food101)), text_folder, splits=Splits(0.25, subset=24))
    assert [len(data.records(split)) for split in ("train", "val", "test", "predict")] == [24, 24, 24, 24]  # type: ignore[arg-type]
    labels = [name for names in data.records("test")["labels"].to_pylist() for name in names]  # type: ignore[index]
    assert {labels.count(name) for name in data.facts.class_names} == {2}


def test_batches_say_what_is_absent(tmp_path: Path, text_folder: Path) -> None:
    data = module(table_of(tmp_path), text_folder)
    seen = {i: row for batch in batches(data) for i, row in enumerate_rows(batch)}
    for i, (image, has_image, tokens, has_text, label) in seen.items():
        number = int(i) - 1
        assert has_image == (number % 3 != 0)
        assert has_text == (number % 4 != 0)
        assert data.facts.class_names[label] == ("odd" if number % 2 else "even")
        if has_image:
            assert image.dtype == torch.uint8
            assert image[2 if number % 2 == 0 else 0].float().mean() > 200 > image.float().mean()
        assert tokens == (4 if has_text else 0)


def enumerate_rows(batch: Batch) -> list[tuple[str, tuple[Any, ...]]]:
    """Of each sample: image or None, whether there is one, number of tokens, whether there is a text, label."""
    assert batch.label is not None
    pixels, texts = batch.images["clean"], batch.texts["clean"]
    assert isinstance(pixels, torch.Tensor)
    assert isinstance(texts, Tokens)
    images, tokens = iter(pixels), iter(texts.attention_mask)
    rows = [
        (next(images) if image else None, image, int(next(tokens).sum()) if text else 0, text, label)
        for image, text, label in zip(
            batch.image_present.tolist(), batch.text_present.tolist(), batch.label.tolist(), strict=True
        )
    ]
    assert next(images, None) is next(tokens, None) is None
    return list(zip(batch.sample_id, rows, strict=True))


def test_a_batch_in_which_a_modality_is_absent_altogether(tmp_path: Path, text_folder: Path) -> None:
    rows = [{"text": "soup", "label": "ab"[i % 2]} for i in range(20)]
    data = module(Table(train=str(write_table(tmp_path, "train", rows)), image_column=None), text_folder)
    for batch in batches(data):
        images = batch.images["clean"]
        assert isinstance(images, torch.Tensor)
        assert images.shape == (0, 3, 32, 32)
        assert not batch.image_present.any()
    assert len(data.text_encoder.tokenizer()([]).tokens) == 0


def test_corruption_depends_on_seed_epoch_and_sample_not_on_batch_or_worker(food101: Path, text_folder: Path) -> None:
    def one_epoch(epoch: int, **changes: Any) -> dict[str, Any]:
        changes = {"noise": NOISY, "modality_dropout": ModalityDropout(), "augmentation": Augmentation()} | changes
        data = module(Food101(str(food101)), text_folder, **changes)
        data.setup("fit")
        loader = data.train_dataloader()
        assert isinstance(loader.sampler, ResumableSampler)
        loader.sampler.set_epoch(epoch)
        rows = (row for batch in loader for row in enumerate_rows(batch))
        return {i: (None if row[0] is None else row[0].float().sum().item(), *row[1:]) for i, row in rows}

    first = one_epoch(0)
    assert one_epoch(0, batch_size=5, workers=2) == first
    assert one_epoch(1) != first
    assert one_epoch(0, seed=1) != first
    assert {row[1:4:2] for row in first.values()} == {(True, True), (True, False), (False, True)}


def test_validation_is_clean(food101: Path, text_folder: Path) -> None:
    heavy = ModalityDropout(image_dropout=0.5, text_dropout=0.5)
    for batch in batches(module(Food101(str(food101)), text_folder, modality_dropout=heavy), "val"):
        assert batch.image_present.all()


def test_labels_in_another_order_are_mapped_by_name(tmp_path: Path, text_folder: Path) -> None:
    facts = Facts(["odd", "even"], [0.5, 0.5], False)
    for batch in batches(module(table_of(tmp_path), text_folder, facts=facts), "val"):
        for i, row in enumerate_rows(batch):
            assert row[-1] == (0 if (int(i) - 1) % 2 else 1)


def test_multilabel_vectors(tmp_path: Path, text_folder: Path) -> None:
    rows = [{"text": f"t{i}", "label": ["a", "b"][: i % 3]} for i in range(30)]
    data = module(
        Table(train=str(write_table(tmp_path, "train", rows)), image_column=None, multilabel=True), text_folder
    )
    assert data.facts.class_frequencies == pytest.approx([2 / 3, 1 / 3], abs=0.03)
    for batch in batches(data):
        assert batch.label is not None
        expected = [[float(number % 3 > 0), float(number % 3 > 1)] for number in (int(i) - 1 for i in batch.sample_id)]
        assert batch.label.tolist() == expected


@pytest.mark.parametrize(
    ("val", "message"),
    [
        (
            [{"image": "", "text": "t", "label": "neither"}],
            "val split: of 1 samples, 1 have a label that training does not know .the first: 'neither' of '1'",
        ),
        (
            [{"image": "", "text": "t", "label": label} for label in (" ", "odd")],
            "of 2 samples, 1 have no label .the first: '1'",
        ),
    ],
)
def test_labels_that_do_not_fit_are_found_before_anything_is_loaded(
    tmp_path: Path, text_folder: Path, val: list[dict[str, str]], message: str
) -> None:
    source = table_of(tmp_path, val=str(write_table(tmp_path, "val", val)))
    with pytest.raises(RobustTuneError, match=message):
        module(source, Path("/no/encoder")).check("fit")


def test_all_bad_labels_are_counted(tmp_path: Path, text_folder: Path) -> None:
    labels = ["odd", "", "no", "even", "never", None, "nix"]
    val = write_table(tmp_path, "val", [{"image": "", "text": "t", "label": label} for label in labels])
    data = module(table_of(tmp_path, val=str(val)), text_folder)
    message = "of 7 samples, 2 have no label .the first: '2'., 3 have a label that training does not know .*'no' of '3'"
    with pytest.raises(RobustTuneError, match=message):
        data.check("fit")


def test_one_class_only_is_refused(tmp_path: Path, text_folder: Path) -> None:
    path = write_table(tmp_path, "train", [{"text": "t", "label": "same"}] * 20)
    with pytest.raises(RobustTuneError, match=r"has 1 class \(same\)"):
        _ = module(Table(train=str(path), image_column=None), text_folder).facts


def test_nothing_but_blanks_is_refused(tmp_path: Path, text_folder: Path) -> None:
    path = write_table(tmp_path, "train", [{"image": " ", "text": "", "label": label} for label in "ab" * 10])
    with pytest.raises(RobustTuneError, match="none of the 18 train samples has an image or a text"):
        module(Table(train=str(path)), text_folder).check("fit")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "data.batch_size is 0"),
    ],
)
def test_settings_out_of_range_are_refused(
    tmp_path: Path, text_folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RobustTuneError, match=message):
        module(table_of(tmp_path), text_folder, **changes)


def test_a_missing_split_is_named(tmp_path: Path, text_folder: Path) -> None:
    with pytest.raises(RobustTuneError, match="the data has no test split"):
        module(table_of(tmp_path), text_folder).setup("test")


def test_unreadable_images_stop_naming_them_all(tmp_path: Path, text_folder: Path) -> None:
    source = table_of(tmp_path, val=str(write_table(tmp_path, "val", [{"image": "", "text": "t", "label": "odd"}])))
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:60])
    (tmp_path / "7.png").write_bytes(b"")
    data = module(source, text_folder)
    found = [batch for batch in batches(data) if batch.unreadable]
    assert sum(len(batch.unreadable) for batch in found) == 2
    what = f"{tmp_path}/4.png cannot be read as an image .*; {tmp_path}/7.png cannot be read as an image .it is empty"
    with pytest.raises(RobustTuneError, match=f"2 of 13 image files cannot be read: {what}.*to absent"):
        data.on_before_batch_transfer(found[0], 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_put_up_with_is_counted_once_and_reported_at_the_end(
    tmp_path: Path, text_folder: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    rows = [{"image": f"{i % 5}.png", "text": "soup " * (5 + 10 * (i % 2)), "label": "ab"[i % 2]} for i in range(20)]
    for name in "123":
        write_image(tmp_path / f"{name}.png")
    (tmp_path / "4.png").write_bytes(b"no image")  # and 0.png does not exist
    table = write_table(tmp_path, "train", rows)
    source = Table(train=str(table), val=str(table), image_root=str(tmp_path))
    data = module(source, text_folder, unreadable="absent", workers=workers)
    for split in ("train", "train", "val"):
        for batch in batches(data, split):
            data.on_before_batch_transfer(batch, 0)
            assert (~batch.image_present).sum() == len(batch.unreadable)
    with caplog.at_level(logging.WARNING):
        data.teardown("fit")
    for split in ("train", "val"):
        assert f"{split}: 2 image files unreadable, treated as absent; the first: {tmp_path}/0.png" in (caplog.text)
        assert f"{split}: 10 texts cut to text_encoder.max_length" in caplog.text


def test_no_sample_loses_both_modalities_where_an_image_cannot_be_read(tmp_path: Path, text_folder: Path) -> None:
    rows = [{"image": f"{i}.png", "text": "soup", "label": "ab"[i % 2]} for i in range(20)]
    for row in rows:
        (tmp_path / row["image"]).write_bytes(b"no image")
    write_image(tmp_path / "0.png")
    table = str(write_table(tmp_path, "train", rows))
    dropping = ModalityDropout(image_dropout=0.3, text_dropout=0.7)
    data = module(Table(train=table, val=table), text_folder, modality_dropout=dropping, unreadable="absent")
    assert all((batch.image_present | batch.text_present).all() for batch in batches(data))


def test_a_wrong_folder_of_images_is_refused_also_where_some_may_be_absent(
    tmp_path: Path, text_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = table_of(tmp_path)
    (tmp_path / "4.png").unlink()
    with caplog.at_level(logging.WARNING):
        module(source, text_folder, unreadable="absent").check("fit")
    assert "1 image file of the " in caplog.text
    (tmp_path / "elsewhere").mkdir()
    moved = Table(train=source.train, image_root=str(tmp_path / "elsewhere"))
    with pytest.raises(RobustTuneError, match="12 image files of the 18 train samples do not exist, .* no other does"):
        module(moved, text_folder, unreadable="absent").check("fit")


def test_files_that_do_not_exist_are_counted_before_anything_is_loaded(tmp_path: Path, text_folder: Path) -> None:
    source = table_of(tmp_path)
    for number in (1, 2, 5, 7):
        (tmp_path / f"{number}.png").unlink()
    data = module(source, text_folder, splits=Splits(0.5))
    with pytest.raises(
        RobustTuneError, match=r"\d image files? of the 10 train samples do(es)? not exist, the first is .*png:"
    ):
        data.check("fit")
    absent = module(source, text_folder, splits=Splits(0.5), unreadable="absent")
    absent.check("fit")
    assert sum(len(batch.unreadable) for split in ("train", "val") for batch in batches(absent, split)) == 4


def test_samples_to_predict_may_have_labels_of_their_own(tmp_path: Path, text_folder: Path) -> None:
    path = write_table(tmp_path, "new", [{"image": "", "text": "t", "label": "unheard of"}])
    data = module(table_of(tmp_path, predict=str(path)), text_folder)
    data.check("fit")
    assert [batch.label for batch in batches(data, "predict")] == [None]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["even", "odd"], ["even", "odd"]),
        (["odd", "third"], ["even", "odd", "third"]),
        (["third", "another"], ["another", "third"]),
    ],
)
def test_new_classes_of_the_test_split(tmp_path: Path, text_folder: Path, labels: list[str], names: list[str]) -> None:
    """They come after those of training, or, where none of these is there, in their place."""
    test = write_table(tmp_path, "test", [{"image": "", "text": "t", "label": label} for label in labels])
    data = module(table_of(tmp_path, test=str(test)), text_folder, classes="all")
    assert data.class_names("test") == data.class_names("predict") == names
    assert data.class_names("train") == data.class_names("val") == data.facts.class_names == ["even", "odd"]
    (batch,) = batches(data, "test")
    assert batch.label is not None
    assert [names[i] for i in batch.label] == labels


def test_one_new_class_alone_is_refused(tmp_path: Path, text_folder: Path) -> None:
    test = write_table(tmp_path, "test", [{"image": "", "text": "t", "label": "third"}])
    data = module(table_of(tmp_path, test=str(test)), text_folder, classes="all")
    with pytest.raises(RobustTuneError, match="the test split has one class, 'third', and two are needed"):
        data.check("test")


def test_new_classes_of_other_splits_are_refused(tmp_path: Path, text_folder: Path) -> None:
    val = write_table(tmp_path, "val", [{"image": "", "text": "t", "label": "third"}])
    data = module(table_of(tmp_path, val=str(val)), text_folder, classes="all")
    with pytest.raises(RobustTuneError, match="1 have a label that training does not know"):
        data.check("fit")


def test_noise_in_evaluation_is_always_the_same_and_in_training_never(food101: Path, text_folder: Path) -> None:
    """Whatever the batch, the worker and the epoch."""
    noisy = SplitNoise(ImageNoise(["gaussian", "blur"], [1, 5]), TextNoise(["typos", "other_text"]))

    def split(name: str, epoch: int = 0, **changes: Any) -> dict[str, Any]:
        changes = {"noise": NoiseBySplit(noisy, noisy, noisy)} | changes
        data = module(Food101(str(food101)), text_folder, **changes)
        data.setup("test" if name == "test" else "fit")
        loader = getattr(data, f"{name}_dataloader")()
        loader.sampler.set_epoch(epoch)
        rows = (row for batch in loader for row in enumerate_rows(batch))
        return {i: (None if row[0] is None else row[0].float().sum().item(), *row[1:]) for i, row in rows}

    for name in ("val", "test"):
        first = split(name)
        assert split(name, epoch=3) == first
        assert split(name, batch_size=5, workers=2) == first
        assert split(name, seed=0, noise=NoiseBySplit()) != first
    assert split("test", seed=1) != split("test")
    assert split("train", epoch=1) != split("train")


@pytest.mark.parametrize(
    ("classes", "names"),
    [("training", None), ("all", ["pie", "soup", "ramen"]), ("test", ["ramen", "soup"])],
)
def test_the_classes_of_a_test_sample(tmp_path: Path, text_folder: Path, classes: Any, names: list[str] | None) -> None:
    rows = {"train": ["pie", "soup"] * 4, "val": ["pie", "soup"], "test": ["soup", "ramen"]}
    tables: dict[str, Any] = {
        split: str(write_table(tmp_path, split, [{"text": "x", "label": label} for label in labels]))
        for split, labels in rows.items()
    }
    data = module(Table(**tables, image_column=None), text_folder, classes=classes)
    if names is None:
        with pytest.raises(RobustTuneError, match="1 have a label that training does not know"):
            data.setup("test")
        return
    data.setup("test")
    assert data.class_names("test") == data.class_names("predict") == names
    assert data.class_names("val") == ["pie", "soup"]
    (batch,) = data.test_dataloader()
    assert [names[label] for label in batch.label.tolist()] == ["soup", "ramen"]
