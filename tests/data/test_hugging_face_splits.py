"""What Hugging Face data sets call their splits, and which are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from robusttune.data.sources import HuggingFace, SplitNames
from robusttune.errors import RobustTuneError
from robusttune.types import Split

FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=["soup", "pie"])})


def saved(folder: Path, labels: dict[str, list[int]], **settings: Any) -> HuggingFace:
    """A data set with a sample for each label, whose text tells its split."""
    splits = {
        name: Dataset.from_dict({"text": [name] * len(of), "label": of}, features=FEATURES)
        for name, of in labels.items()
    }
    DatasetDict(splits).save_to_disk(folder / "own")
    return HuggingFace(str(folder / "own"), image_column=None, **settings)


def texts(source: HuggingFace, split: Split) -> set[str] | None:
    table = source.read(split)
    return None if table is None else {*table["text"].to_pylist()}


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "eval"])
def test_a_validation_split_is_found_by_its_usual_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    source = saved(tmp_path, {"train": [0, 1], name: [1, 0], "test": [0]})
    assert [texts(source, split) for split in ("train", "val", "test", "predict")] == [
        {"train"},
        {name},
        {"test"},
        None,
    ]
    expected = "" if name == "validation" else f"own has no split validation: its split {name} is used"
    assert expected in caplog.text
    assert bool(caplog.text) == bool(expected)


def test_null_leaves_a_split_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = SplitNames(val=None, test=None)
    source = saved(tmp_path, {"train": [0, 1], "valid": [1, 0], "test": [0]}, split_names=names)
    assert [texts(source, split) for split in ("train", "val", "test", "predict")] == [{"train"}, None, None, None]
    assert not caplog.text


def test_splits_that_are_not_used_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = saved(tmp_path, {"train": [0, 1], "dev": [0], "valid": [1], "extra": [1]})
    for split in ("train", "val", "test"):
        source.read(split)
    assert texts(source, "val") == {"valid"}
    assert caplog.text.count("has splits that are not used, dev, extra: name them in data.source.split_names") == 1


def test_a_name_that_was_given_is_taken_at_its_word(tmp_path: Path) -> None:
    source = saved(tmp_path, {"train": [0, 1], "valid": [1]}, split_names=SplitNames(val="held_out"))
    with pytest.raises(RobustTuneError, match=r"own has no split 'held_out' .it has train, valid.: correct"):
        source.read("val")


def test_a_test_split_without_labels_is_there_to_predict(tmp_path: Path) -> None:
    """As the hub writes the test splits of benchmarks."""
    source = saved(tmp_path, {"train": [0, 1], "test": [-1, -1]})
    assert source.read("test") is None
    table = source.read("predict")
    assert table is not None
    assert table["text"].to_pylist() == ["test", "test"]
    assert table["labels"].to_pylist() == [None, None]


def test_a_test_split_of_which_some_lack_a_label_stays_one(tmp_path: Path) -> None:
    source = saved(tmp_path, {"train": [0, 1], "test": [-1, 1]})
    assert texts(source, "test") == {"test"}
    assert source.read("predict") is None


def test_minus_one_may_be_a_class(tmp_path: Path) -> None:
    """Where the data set does not number its classes, such as a sentiment of -1, 0 or 1."""
    Dataset.from_dict({"text": ["a", "b", "c"], "label": [-1, 0, 1]}).save_to_disk(tmp_path / "own")
    table = HuggingFace(str(tmp_path / "own"), image_column=None).read("train")
    assert table is not None
    assert table["labels"].to_pylist() == [["-1"], ["0"], ["1"]]
