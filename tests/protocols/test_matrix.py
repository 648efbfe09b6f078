"""Expansion of a protocol file to runs, and the command lines of the runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from robusttune.errors import RobustTuneError
from robusttune.protocols.command_lines import (
    arguments_of_fit,
    arguments_of_test,
    data_paths,
    data_root_flags,
    missing_data,
)
from robusttune.protocols.matrix import Protocol
from robusttune.protocols.protocol_file import read_protocol
from robusttune.protocols.remaining import in_words, remaining_seconds

TEXT = """
configs: [conditions/quick]
settings: {trainer.max_epochs: 9, data.batch_size: 8}
axes:
  dataset:
    DTD: {configs: [dtd_mmrl]}
    EuroSAT: {configs: [eurosat_mmrl], settings: {trainer.max_epochs: 3}}
  method:
    MMRL: {}
    MMRL++: {settings: {model.adapter.residual_rank: 4}}
  seed: {1: {settings: {seed_everything: 1}}, 2: {settings: {seed_everything: 2}}}
combinations:
  - {where: {dataset: [DTD, EuroSAT], method: MMRL++}, settings: {model.adapter.beta: 0.9}}
  - {where: {dataset: EuroSAT, method: MMRL++}, settings: {model.adapter.beta: 0.1}}
exclude:
  - {method: MMRL, seed: 2}
tests:
  - {}
  - axes: {target: {UCF101: {configs: [ucf101_mmrl]}, SUN397: {configs: [sun397_mmrl]}}}
    configs: [clip/transfer]
    settings: {data.seed: 5}
    checkpoint: last
"""


def read(folder: Path, text: str = TEXT) -> Protocol:
    (folder / "table.yaml").write_text(text)
    return read_protocol(str(folder / "table.yaml"))


def names(args: list[str]) -> list[str]:
    """Return arguments, of configurations only the name."""
    return [Path(arg).stem if arg.startswith("--config=") else arg for arg in args]


def test_later_parts_win(tmp_path: Path) -> None:
    runs = {run.slug: run for run in read(tmp_path).runs(settings={"data.batch_size": 4})}
    assert [*runs] == [
        *("DTD-MMRL-seed1", "DTD-MMRL++-seed1", "DTD-MMRL++-seed2"),
        *("EuroSAT-MMRL-seed1", "EuroSAT-MMRL++-seed1", "EuroSAT-MMRL++-seed2"),
    ]
    assert names(arguments_of_fit(runs["EuroSAT-MMRL++-seed2"])) == [
        *("eurosat_mmrl", "quick", "--model.adapter.residual_rank=4", "--seed_everything=2", "--trainer.max_epochs=9"),
        *("--model.adapter.beta=0.1", "--data.batch_size=4"),
    ]
    assert "--model.adapter.beta=0.9" in arguments_of_fit(runs["DTD-MMRL++-seed1"])


def test_a_test_with_the_configuration_of_another_data_set_keeps_the_settings_of_the_model(tmp_path: Path) -> None:
    run = read(tmp_path).runs()[1]
    assert [(test.report, test.checkpoint, test.labels) for test in run.tests] == [
        ("test", "best", {}),
        ("UCF101", "last", {"target": "UCF101"}),
        ("SUN397", "last", {"target": "SUN397"}),
    ]
    own = arguments_of_fit(run)
    assert arguments_of_test(run, run.tests[0]) == own
    added = names(arguments_of_test(run, run.tests[1])[len(own) :])
    again = ["--model.adapter.residual_rank=4", "--trainer.max_epochs=9", "--model.adapter.beta=0.9"]
    assert added == ["ucf101_mmrl", "transfer", *again, "--data.seed=5"]


def test_only_some_labels(tmp_path: Path) -> None:
    protocol = read(tmp_path)
    some = protocol.runs(only={"dataset": ["DTD"], "seed": ["2"]})
    assert [run.slug for run in some] == ["DTD-MMRL++-seed2"]
    assert [[test.report for test in run.tests] for run in protocol.runs(only={"target": ["SUN397"]})] == [
        ["SUN397"]
    ] * 6
    with pytest.raises(RobustTuneError, match="has no run of these labels: correct --only"):
        protocol.runs(only={"method": ["MMRL"], "seed": ["2"]})


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"metod": ["MMRL"]}, "--only names the axis 'metod': give one of dataset, method, seed, target"),
        ({"method": ["mmrl"]}, r"--only names 'mmrl', which method does not have: give one of MMRL, MMRL\+\+"),
    ],
)
def test_labels_that_do_not_exist(tmp_path: Path, only: dict[str, list[str]], message: str) -> None:
    with pytest.raises(RobustTuneError, match=message):
        read(tmp_path).runs(only=only)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes: {a: [}", "line 1 is not YAML"),
        ("axes: {a: {b: {}}, a: {c: {}}}", "a is given twice"),
        ("", "the file is None, not a mapping"),
        ("axes: 5", "axes is 5, not a mapping"),
        ("axes: {}", "has no axes: give at least one"),
        ("axes: {seed: {}}", "axes.seed has no values: give at least one"),
        ("axes: {seed: {1: 3}}", "axes.seed.1 is 3, not a mapping"),
        ("axes: {seed: {1: {config: [demo]}}}", r"'config', which does not exist \(did you mean configs\?\)"),
        ("axes: {seed: {1: {configs: demo}}}", "configs is 'demo', not a list"),
        ("axes: {seed: {1: {settings: [1]}}}", r"axes.seed.1.settings is \[1\], not a mapping"),
        ("axes: {seed: {'1,2': {}}}", "the label '1,2', and --only takes lists with commas"),
        ("axes: {seed: {1: {}}}\ntest: []", r"'test', which does not exist \(did you mean tests\?\)"),
        ("axes: {seed: {1: {}}}\ntitle: 3", "title is 3, not a text"),
        ("axes: {seed: {1: {}}}\ntests: {}\nexclude: 3", "exclude is 3, not a list"),
        ("axes: {seed: {1: {}}}\nexclude: [{seed: 2}]", r"exclude\[0\] names '2', which seed does not have"),
        ("axes: {seed: {1: {}}}\ncombinations: [{settings: {}}]", r"combinations\[0\].where has no labels"),
        ("axes: {seed: {1: {}}}\ncombinations: [{where: {shots: 1}}]", "names the axis 'shots'"),
        ("axes: {seed: {1: {}}}\ntests: [{report: a/b}]", "'a/b', which is no plain file name"),
        ("axes: {seed: {1: {}}}\ntests: [{report: validate}]", "'validate' is the name of another report's files"),
        ("axes: {seed: {1: {}}}\ntests: [{checkpoint: newest}]", "'newest': give best or last"),
        ("axes: {seed: {1: {}}}\ntests: [{report: a}, {report: b}]", "the tests a and b have the same labels"),
        ("axes: {seed: {1: {}}}\ntests: [{labels: {seed: 2}}]", "has the axis seed a second time"),
        ("data: {}\nmodel: {}", "is the configuration of one run, and no protocol"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RobustTuneError, match=message) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(str(tmp_path / "table.yaml"))
    assert "\n" not in str(raised.value)


def test_paths_of_data(tmp_path: Path) -> None:
    source = {
        "root": "data/sets",
        "split_file": "dtd/split.json",
        "label_column": "data/x",
        "published": {"classes": 3},
    }
    settings = {
        "data": {"source": {"class_path": "CoOp", "init_args": source}},
        "image_encoder": {"class_path": "Timm", "init_args": {"name": "vit", "weights": "data/vit.safetensors"}},
        "text_encoder": None,
    }
    paths = data_paths(settings)
    assert paths == {
        "data.source.root": "data/sets",
        "image_encoder.weights": "data/vit.safetensors",
        "data.source.root/split_file": "data/sets/dtd/split.json",
    }
    root = tmp_path / "elsewhere"
    assert data_root_flags(paths, None) == []
    assert data_root_flags(paths, str(root)) == [
        f"--data.source.root={root}/sets",
        f"--image_encoder.weights={root}/vit.safetensors",
    ]
    assert missing_data(paths, None) == "data/sets/dtd/split.json"
    (root / "sets/dtd").mkdir(parents=True)
    (root / "vit.safetensors").touch()
    assert missing_data(paths, str(root)) == f"{root}/sets/dtd/split.json"
    (root / "sets/dtd/split.json").touch()
    assert missing_data(paths, str(root)) is None
    assert missing_data({"data.source.train": "data/*.jsonl", "data.source.val": "https://x/data"}, None) is None


def test_the_remaining_time_is_that_of_the_runs_that_are_most_alike() -> None:
    finished = [({"dataset": "DTD", "shots": "1"}, 10.0), ({"dataset": "SUN397", "shots": "1"}, 100.0)]
    assert remaining_seconds(finished, [{"dataset": "SUN397", "shots": "16"}], 4) == 100.0
    assert remaining_seconds(finished, [{"dataset": "other", "shots": "16"}] * 2, 2) == 55.0
    assert [in_words(seconds) for seconds in (1, 119, 121, 7201)] == ["1 s", "119 s", "2 min", "2.0 h"]
