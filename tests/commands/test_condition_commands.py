"""Conditions through the command line: each is what its protocol or noise is by itself, and what a test leaves."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import mmrl_flags, tiny_flags, write_table
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from robusttune.checkpoint_file import KEY, read_checkpoint
from robusttune.cli import main
from robusttune.report.runs import read_tested
from robusttune.tasks import FusionTask

CONFIGS = Path(__file__).parents[2] / "configs"
EXACT = ["--trainer.precision=64-true"]  # what rounding leaves changes no rank of a sample, and no bin
LONGER = ["--data.batch_size=12", "--trainer.max_epochs=2"]  # so that answers differ
MIXED = "missing_both_50+noisy_image_gaussian_3+noisy_text_typos_3"
GAUSSIAN, TYPOS = "{kinds: [gaussian], severities: [3]}", "{kinds: [typos], severities: [3]}"
SAME = {  # condition -> the flags of a test of `complete` that it is the same as
    "missing_image_30": ["--data.missing.test={rate: 0.3, type: image}"],
    "missing_text_70": ["--data.missing.test={rate: 0.7, type: text}"],
    "missing_both_50": ["--data.missing.test={rate: 0.5, type: both}"],
    "noisy_image_gaussian_3": [f"--data.noise.test.image={GAUSSIAN}"],
    "noisy_text_other_text_2": ["--data.noise.test.text={kinds: [other_text], severities: [2]}"],
    MIXED: [
        "--data.missing.test={rate: 0.5, type: both}",
        f"--data.noise.test.image={GAUSSIAN}",
        f"--data.noise.test.text={TYPOS}",
    ],
}
ALL = ["complete", "no_image", "no_text", *SAME]


def under(*names: str) -> str:
    return f"--data.evaluation.conditions=[{','.join(names)}]"


def report_of(run: Path, *flags: str) -> dict[str, Any]:
    """What a test of the last checkpoint leaves."""
    assert main(["test", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/last.ckpt", *flags]) == 0
    found: dict[str, Any] = json.loads((run / "report/test.json").read_text())
    return found


def assert_close(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    """The same but for the last digits, in which sums in another order differ."""
    assert [*found] == [*expected]
    for condition, values in expected.items():
        assert found[condition] == pytest.approx(values, rel=1e-6), condition


@pytest.fixture(scope="module")
def run(food101: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit."""
    root = tmp_path_factory.mktemp("runs")
    flags = [*tiny_flags(food101, text_folder), *EXACT, *LONGER, f"--run_root={root}"]
    assert main(["fit", f"--config={CONFIGS}/food101.yaml", *flags]) == 0
    return root / "food101/0"


@pytest.fixture(scope="module")
def mmrl(food101: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit of MMRL on half of the classes; its tests are on all."""
    root = tmp_path_factory.mktemp("runs")
    flags = [*mmrl_flags(food101, clip_folder), *EXACT, "--data.splits.classes=base", "--model.reg_weight=0.1"]
    flags += ["--model.schedule.warmup=0", *LONGER]
    assert main(["fit", f"--config={CONFIGS}/food101_mmrl.yaml", *flags, f"--run_root={root}"]) == 0
    return root / "food101_mmrl/0"


@pytest.fixture(scope="module")
def several(food101: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit on data of several labels a sample; some samples lack a modality."""
    root = tmp_path_factory.mktemp("runs")
    paths = sorted((food101 / "images/train").rglob("*.jpg"))
    rows = [
        {
            "image": str(path) if i % 5 else "",
            "text": path.stem.replace("_", " ") if i % 7 else "",
            "label": path.parent.name.split("_"),
        }
        for i, path in enumerate(paths)
        if i % 35
    ]
    table, few = write_table(root, "train", rows), write_table(root, "test", rows[::3])
    flags = [flag for flag in tiny_flags(food101, text_folder) if "source.root" not in flag]
    flags += [f"--data.source.train={table}", f"--data.source.test={few}", "--data.source.multilabel=true"]
    flags += [*EXACT, *LONGER, f"--run_root={root}", "--model.threshold=0.5"]
    assert main(["fit", f"--config={CONFIGS}/table.yaml", *flags]) == 0
    return root / "table/0"


@pytest.fixture(scope="module")
def conditions(run: Path) -> dict[str, dict[str, float]]:
    """All conditions in one test."""
    found: dict[str, dict[str, float]] = report_of(run, under(*ALL))["conditions"]
    return found


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("missing_text_70", "missing_both_50") else [])
        for name in SAME
    ],
)
def test_a_condition_is_its_protocol_and_noise(run: Path, conditions: dict[str, Any], name: str) -> None:
    alone = report_of(run, under("complete"), *SAME[name])["conditions"]["complete"]
    assert conditions[name] == pytest.approx(alone, rel=1e-6)
    assert conditions[name]["accuracy"] == alone["accuracy"]


def test_conditions_differ(conditions: dict[str, dict[str, float]]) -> None:
    """Else it would prove nothing that some are the same."""
    assert len({round(values["loss"], 7) for values in conditions.values()}) == len(ALL) + 1
    for metric, value in conditions["mean"].items():
        assert value == pytest.approx(np.mean([conditions[name][metric] for name in ALL]))


@pytest.mark.slow
def test_batches_workers_and_a_cache_change_nothing(
    run: Path, conditions: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    cache = [f"--data.cache.folder={tmp_path}/cache", "--data.cache.dtype=float32"]
    for flags in (["--data.batch_size=36"], ["--data.batch_size=1"], ["--data.loader.workers=2"], cache, cache):
        assert_close(report_of(run, under(*ALL), *flags)["conditions"], conditions)
    shuffled = report_of(run, under(*sorted(ALL)), *cache)["conditions"]
    assert_close({name: shuffled[name] for name in conditions}, conditions)


@pytest.mark.exhaustive
def test_two_processes_find_what_one_does(run: Path, conditions: dict[str, dict[str, float]]) -> None:
    """Samples that lack a modality and noise are the same, whichever process has them; one row only fills up."""
    test = [
        "test",
        f"--config={run}/config.yaml",
        f"--ckpt_path={run}/checkpoints/last.ckpt",
        "--data.splits.subset=35",
    ]
    expected = report_of(run, under(*ALL), *test[3:])
    command = [sys.executable, "-m", "robusttune", *test, under(*ALL), "--data.batch_size=20"]
    done = subprocess.run(
        [*command, "--trainer.devices=2", "--trainer.strategy=ddp"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((run / "report/test.json").read_text())
    assert found["samples"] == 35
    assert_close(found["conditions"], expected["conditions"])
    for condition, row in expected["intervals"].items():
        for metric, ends in row.items():
            assert found["intervals"][condition][metric] == pytest.approx(ends, rel=1e-4, abs=1e-5)
    of_ranks = [pq.read_table(run / f"report/test.parquet/0000{rank}.parquet") for rank in range(2)]
    assert sum(map(len, of_ranks)) == 35 * len(ALL)
    assert read_tested(run).samples == 35
    report_of(run, under(*ALL), *test[3:])
    assert [path.name for path in (run / "report/test.parquet").iterdir()] == ["00000.parquet"]
    for condition, layers in expected["canonical_correlation"].items():
        assert found["canonical_correlation"][condition] == pytest.approx(layers, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["missing_both_50", "noisy_image_gaussian_3", MIXED])
def test_conditions_of_mmrl(mmrl: Path, name: str) -> None:
    """Of base and new classes in one test."""
    found = report_of(mmrl, under("complete", "no_text", name))["conditions"]
    assert len({values["loss"] for values in found.values()}) == 4
    alone = report_of(mmrl, under("complete"), *SAME[name])["conditions"]["complete"]
    assert found[name] == pytest.approx(alone, rel=1e-6)


def read(run: Path, ending: str) -> list[dict[str, str]]:
    with (run / f"report/test{ending}").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def samples_of(run: Path, condition: str) -> list[dict[str, Any]]:
    return [row for row in pq.read_table(run / "report/test.parquet").to_pylist() if row["condition"] == condition]


def assert_files_agree(run: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The report, its table of conditions, that of classes and that of samples say the same.

    Returns:
        What the table of samples says of itself.
    """
    values = report["conditions"]
    rows = {row.pop("condition"): row for row in read(run, ".csv")}
    assert [*rows] == [*values]
    for condition, row in rows.items():
        assert {k: float(v) if v else None for k, v in row.items()} == pytest.approx(values[condition])
    about: dict[str, Any] = json.loads(
        pq.read_schema(run / "report/test.parquet/00000.parquet").metadata[b"robusttune"]
    )
    classes = about["class_names"]
    names = [name for name in values if name != "mean"]
    told = read(run, "_classes.csv")
    assert [(row["condition"], row["class"]) for row in told] == [(name, c) for name in names for c in classes]
    for number, condition in enumerate(names):
        samples = samples_of(run, condition)
        assert [row["id"] for row in samples] == sorted(row["id"] for row in samples)
        assert len(samples) == report["samples"]
        label, said = (hot(samples, column, classes) for column in ("label", "prediction"))
        expected = precision_recall_fscore_support(label, said, average=None, zero_division=0)
        of_condition = told[number * len(classes) : (number + 1) * len(classes)]
        for row, *shares in zip(of_condition, *expected, strict=True):
            found = [float(row[column]) for column in ("precision", "recall", "f1", "samples")]
            assert found == pytest.approx(shares, rel=1e-5)
    return about


def hot(samples: list[dict[str, Any]], column: str, classes: list[str]) -> np.ndarray:
    """(N, C), whether the column has the class."""
    said = [row[column] if isinstance(row[column], list) else [row[column]] for row in samples]
    return np.array([[name in names for name in classes] for names in said])


def test_files_of_one_label_a_sample(run: Path) -> None:
    report = report_of(run, under(*ALL))
    assert not assert_files_agree(run, report)["multilabel"]
    values = report["conditions"]
    for condition in ALL:
        samples = samples_of(run, condition)
        label, said = ([row[column] for row in samples] for column in ("label", "prediction"))
        assert values[condition]["accuracy"] == pytest.approx(accuracy_score(label, said))
        assert values[condition]["f1_macro"] == pytest.approx(f1_score(label, said, average="macro", zero_division=0))
        losses = [-np.log(row["label_probability"]) for row in samples]
        assert values[condition]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert values[condition]["top5_accuracy"] == pytest.approx(np.mean([row["label_rank"] <= 5 for row in samples]))
        assert all(row["label_rank"] == 1 for row in samples if row["label"] == row["prediction"])
        low, high = report["intervals"][condition]["accuracy"]
        assert low <= values[condition]["accuracy"] <= high
    hidden = {
        name: tuple(
            sum(not row[f"{modality}_present"] for row in samples_of(run, name)) for modality in ("image", "text")
        )
        for name in ALL
    }
    blank = hidden["complete"][1]
    assert hidden["complete"] == hidden["noisy_image_gaussian_3"] == (0, blank)
    assert hidden["no_text"] == (0, 36)
    assert hidden["missing_image_30"] == (11, blank)
    assert hidden["missing_both_50"] == hidden[MIXED]
    assert hidden["missing_both_50"][0] == 9 <= hidden["missing_both_50"][1] <= 9 + blank
    accuracy = {name: values[name]["accuracy"] for name in ALL}
    kept = report["robustness"]["relative"]
    assert kept == pytest.approx({n: v / accuracy["complete"] for n, v in accuracy.items() if n != "complete"})
    curve = report["robustness"]["curves"]["text"]
    assert curve["conditions"] == ["complete", "missing_text_70", "no_text"]
    assert curve["values"] == [accuracy[name] for name in curve["conditions"]]
    assert curve["area"] == pytest.approx(np.trapezoid(curve["values"], [0, 0.7, 1]))
    assert len(report["canonical_correlation"]["layers"]) == 2


def test_files_of_several_labels_a_sample(several: Path) -> None:
    names = ["complete", "missing_text_50", MIXED]
    report = report_of(several, under(*names))
    about = assert_files_agree(several, report)
    assert about["multilabel"]
    assert report["headline"] == "f1_macro"
    for condition in names:
        samples = samples_of(several, condition)
        label, said = (hot(samples, column, about["class_names"]) for column in ("label", "prediction"))
        shares = np.array([row["probabilities"] for row in samples])
        assert ((shares >= 0.5) == said).all()
        for average in ("macro", "micro", "weighted", "samples"):
            expected = f1_score(label, said, average=average, zero_division=0)
            assert report["conditions"][condition][f"f1_{average}"] == pytest.approx(expected)
        assert report["conditions"][condition]["brier"] == pytest.approx(((shares - label) ** 2).mean(), rel=1e-5)
    lacking = [
        row["image"] == "" for row in map(json.loads, (several.parents[1] / "test.jsonl").read_text().splitlines())
    ]
    assert sum(not row["image_present"] for row in samples_of(several, "complete")) == sum(lacking) > 0


@pytest.mark.slow
def test_files_of_base_and_new_classes(mmrl: Path) -> None:
    names = ["complete", "missing_both_50", "noisy_text_typos_3"]
    report = report_of(mmrl, under(*names))
    about = assert_files_agree(mmrl, report)
    assert report["headline"] == "harmonic_mean"
    assert len(about["class_names"]) == 12
    assert len(read_checkpoint(mmrl / "checkpoints/last.ckpt")[KEY]["facts"]["class_names"]) == 6
    for condition in names:
        right = [row["label"] == row["prediction"] for row in samples_of(mmrl, condition)]
        row = report["conditions"][condition]
        assert row["unknown_accuracy"] == pytest.approx(np.mean(right))
        base, new = row["base_accuracy"], row["new_accuracy"]
        assert row["harmonic_mean"] == pytest.approx(2 * base * new / max(base + new, 1e-9))
        assert {*row} - {*report["intervals"][condition]} == {"calibration_error"}


def test_a_fit_that_comes_to_its_end_says_so(run: Path) -> None:
    done = json.loads((run / "finished.json").read_text())
    assert done["epochs"] == 2
    assert done["steps"] == read_checkpoint(run / "checkpoints/last.ckpt")["global_step"] > 1
    assert done["seconds"] > 0


@pytest.mark.parametrize("how", [KeyboardInterrupt(), ValueError("a bug"), None])
def test_a_fit_that_does_not_come_to_its_end_says_nothing(
    food101: Path, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: BaseException | None
) -> None:
    """Interrupted in the second epoch, broken there, or told that its loss is not finite."""
    fit = [*tiny_flags(food101, text_folder), "--trainer.max_epochs=3", f"--run_root={tmp_path}"]
    losses = FusionTask.training_losses

    def stop(task: FusionTask, *args: Any) -> Any:
        if task.current_epoch == 1 and how is not None:
            raise how
        return losses(task, *args)

    monkeypatch.setattr(FusionTask, "training_losses", stop)
    flags = ["--model.optimizer.lr=1e30", "--model.schedule.warmup=0"] if how is None else []
    with suppress(ValueError):
        status = main(["fit", f"--config={CONFIGS}/food101.yaml", *fit, *flags])
        assert status == (130 if isinstance(how, KeyboardInterrupt) else 1)
    assert (tmp_path / "food101/0/config.yaml").is_file()
    assert not (tmp_path / "food101/0/finished.json").exists()
