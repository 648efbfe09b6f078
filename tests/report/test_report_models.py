"""Which runs are found, which count, which are one model, and what models are called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from report.made_up import CONDITIONS, SHARD, shares, write_run

from robusttune.errors import RobustTuneError
from robusttune.report.models import group
from robusttune.report.runs import find_runs

PREDICTIONS = shares(30, 0, **dict.fromkeys(CONDITIONS, 0.8))
MOLT, LATE = "robusttune.models.MoLT", "robusttune.models.Late"


def run(folder: Path, name: str = "demo", seed: int = 0, **settings: Any) -> Path:
    return write_run(folder, name, PREDICTIONS, {path.replace("__", "."): v for path, v in settings.items()}, seed)


def labels(*paths: Path) -> list[str]:
    return [model.label for model in group(find_runs([str(path) for path in paths]))[0]]


def test_runs_are_found_below_each_once_and_in_order(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        run(tmp_path / f"b/{number}", seed=number)
    run(tmp_path / "a/0", seed=5)
    (tmp_path / "b/9/wandb").mkdir()  # another logger's
    (tmp_path / "b/9/wandb/config.yaml").write_text("name: x\nmodel: y\ndata: z\n")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/config.yaml").write_text("colour: red\n")  # of something else
    found = find_runs([str(tmp_path / "b"), str(tmp_path / "b/1"), str(tmp_path)])
    assert [str(run.folder.relative_to(tmp_path)) for run in found] == ["b/1", "b/9", "b/10", "a/0"]


def test_seeds_names_and_folders_make_no_other_model(tmp_path: Path) -> None:
    run(tmp_path / "0", seed=0, **{"data.cache.folder": "here"}, trainer__log_every_n_steps=1)
    run(tmp_path / "1", seed=1, data__missing={"train": {"rate": None, "seed": 4}}, name="again")
    (tmp_path / "0/config.yaml").write_text(
        (tmp_path / "0/config.yaml").read_text().replace("train: null", "train: {rate: null, seed: 3}")
    )
    models, repeats = group(find_runs([str(tmp_path)]))
    assert [(model.label, len(model.runs)) for model in models] == [("demo", 2)]
    assert repeats == []


@pytest.mark.parametrize(
    ("path", "value"), [("model__init_args__beta", 0), ("data__batch_size", 4), ("data__missing__train", {"rate": 0.7})]
)
def test_every_other_setting_makes_another(path: str, value: Any, tmp_path: Path) -> None:
    run(tmp_path / "0")
    run(tmp_path / "1", **{path: value})
    assert len(labels(tmp_path)) == 2


def test_the_same_seeds_again_count_once(tmp_path: Path) -> None:
    run(tmp_path / "0")
    run(tmp_path / "1")
    models, repeats = group(find_runs([str(tmp_path)]))
    assert [run.folder.name for run in models[0].runs] == ["1"]
    assert [(one.folder.name, other.folder.name) for one, other in repeats] == [("0", "1")]


def test_runs_without_a_seed_are_all_different(tmp_path: Path) -> None:
    for number in range(2):
        run(tmp_path / f"{number}", seed_everything=None)
    assert [len(model.runs) for model in group(find_runs([str(tmp_path)]))[0]] == [2]


def test_namesakes_are_distinguished_by_one_or_two_settings(tmp_path: Path) -> None:
    for number, beta in enumerate((0, 0.1)):
        run(tmp_path / f"{number}", model__init_args__beta=beta)
    run(tmp_path / "2", name="other", model__init_args__beta=3)
    assert labels(tmp_path) == ["demo, model.beta 0", "demo, model.beta 0.1", "other"]


def test_another_class_says_enough(tmp_path: Path) -> None:
    run(tmp_path / "0", model__init_args__fusion={"class_path": MOLT, "init_args": {"width": 4, "layers": 1, "x": 2}})
    run(tmp_path / "1", model__init_args__fusion={"class_path": LATE, "init_args": {"width": 8}})
    assert labels(tmp_path) == ["demo, model.fusion MoLT", "demo, model.fusion Late"]


def test_namesakes_that_differ_in_more_are_distinguished_by_folder(tmp_path: Path) -> None:
    run(tmp_path / "0")
    run(tmp_path / "1", model__a=1, model__b=2, model__c=3)
    assert labels(tmp_path) == [f"demo, {tmp_path}/0", f"demo, {tmp_path}/1"]


LAST = {"checkpoint": "runs/0/checkpoints/last.ckpt"}


@pytest.mark.parametrize(
    ("more", "labels_of"),
    [
        (LAST, ["demo, tested.checkpoint best.ckpt", "demo, tested.checkpoint last.ckpt"]),
        ({"data": {"classes": "all"}}, ["demo, tested.classes training", "demo, tested.classes all"]),
        ({"samples": 25}, ["demo, tested.samples 30", "demo, tested.samples 25"]),
        ({"data": {"mask": "cafe", "missing": None, "samples": {"complete": 1}}}, ["demo"]),
    ],
)
def test_runs_that_were_tested_differently_are_other_models(
    more: dict[str, Any], labels_of: list[str], tmp_path: Path
) -> None:
    for seed in range(3):
        write_run(tmp_path / f"{seed}", "demo", PREDICTIONS, seed=seed, more=more if seed == 2 else None)
    assert labels(tmp_path) == labels_of


def test_what_the_configuration_says_is_not_reported_twice(tmp_path: Path) -> None:
    classes = "data.evaluation.classes"
    write_run(tmp_path / "0", "demo", PREDICTIONS, {classes: "all"}, more={"data": {"classes": "all"}})
    write_run(tmp_path / "1", "demo", PREDICTIONS, {classes: "training"})
    assert labels(tmp_path) == ["demo, data.evaluation.classes all", "demo, data.evaluation.classes training"]
    write_run(
        tmp_path / "2",
        "demo",
        PREDICTIONS,
        {classes: "training"},
        more=LAST | {"data": {"classes": "training"}},
    )
    write_run(tmp_path / "0/more", "other", PREDICTIONS)  # within a run, and so none
    assert labels(tmp_path)[0].startswith(f"demo, {tmp_path}")


def test_what_does_not_count(tmp_path: Path) -> None:
    write_run(tmp_path / "interrupted", "a", PREDICTIONS, finished=False)
    write_run(tmp_path / "untested", "a", PREDICTIONS, tested=False)
    half = write_run(tmp_path / "half", "a", PREDICTIONS)
    shutil.rmtree(half / "report/test.parquet")
    found = {run.folder.name: (run.finished, run.tested is not None) for run in find_runs([str(tmp_path)])}
    assert found == {"interrupted": (False, False), "untested": (True, False), "half": (True, False)}


def test_unknown_numbers(tmp_path: Path) -> None:
    folder = run(tmp_path / "0")
    found = json.loads((folder / "report/test.json").read_text())
    found["conditions"]["no_text"]["accuracy"] = None
    found["intervals"]["no_text"]["accuracy"] = None
    (folder / "report/test.json").write_text(json.dumps(found))
    tested = find_runs([str(tmp_path)])[0].tested
    assert tested is not None
    assert tested.values["no_text"]["accuracy"] is None
    assert "accuracy" not in tested.intervals["no_text"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"headline": "accuracy"}', '"text"'])
def test_foreign_json_is_refused(content: str, tmp_path: Path) -> None:
    (run(tmp_path / "0") / "report/test.json").write_text(content)
    with pytest.raises(RobustTuneError, match=r"0/report/test.json and test.parquet .*: test the run again, or leave"):
        find_runs([str(tmp_path)])


def test_files_of_two_tests_are_refused(tmp_path: Path) -> None:
    """As a kill leaves them that comes while one report replaces another."""
    mixed = run(tmp_path / "0")
    other = write_run(tmp_path / "1", "demo", shares(30, 1, **dict.fromkeys(CONDITIONS, 0.6)))
    shutil.copy(other / "report" / SHARD, mixed / "report" / SHARD)
    with pytest.raises(RobustTuneError, match=r"0/report/test.json and test.parquet beside it come from two .*: test"):
        find_runs([str(tmp_path)])


def test_a_file_of_a_test_with_more_processes_is_refused(tmp_path: Path) -> None:
    folder = run(tmp_path / "0")
    shutil.copy(folder / "report" / SHARD, folder / "report/test.parquet/00001.parquet")
    with pytest.raises(RobustTuneError, match=r"0/report/test.json and test.parquet beside it come from two .*: test"):
        find_runs([str(tmp_path)])


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    (run(tmp_path / "0") / "report" / SHARD).write_bytes(b"nothing of the kind")
    with pytest.raises(RobustTuneError, match="test the run again, or leave it out"):
        find_runs([str(tmp_path)])


def test_a_configuration_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (run(tmp_path / "0") / "config.yaml").write_text("a: [")
    with pytest.raises(RobustTuneError, match=r"config.yaml is not YAML \(.*\): repair it, or leave it out"):
        find_runs([str(tmp_path)])
