"""Two processes at half the batch each do what one process does, and fail together."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import method_flags, mmrl_flags, tiny_flags, write_table
from forked import run_command

CONFIGS = Path(__file__).parents[2] / "configs"
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
ONE = ["--trainer.devices=1", "--trainer.strategy=auto"]

pytestmark = pytest.mark.slow


def run(*arguments: str, status: int = 0) -> str:
    """What a command line, whose ranks Lightning starts, says on stderr; it must end."""
    command = [sys.executable, "-m", "robusttune", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == status, done.stderr
    return done.stderr


def conditions(folder: Path, *flags: str) -> dict[str, dict[str, float]]:
    """What a test of the last checkpoint finds."""
    run_command("test", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/last.ckpt", *flags)
    found: dict[str, dict[str, float]] = json.loads((folder / "report/test.json").read_text())["conditions"]
    return found


def assert_same(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]], rel: float) -> None:
    """What counts samples is the same; what is made of probabilities is close."""
    for condition, values in expected.items():
        known = {name: value for name, value in values.items() if value is not None}
        assert [name for name, value in found[condition].items() if value is not None] == [*known]
        assert {name: found[condition][name] for name in known} == pytest.approx(known, rel=rel, abs=1e-9)
        counted = [name for name in values if "accuracy" in name or name.startswith("f1")]
        assert [found[condition][name] for name in counted] == [values[name] for name in counted]


MOLT_LOSSES = ("train/loss", "train/task_loss", "train/correlation_loss")
MMRL_LOSSES = ("train/loss", "train/task_loss", "train/text_loss", "train/image_distance", "train/class_distance")


def losses(folder: Path, names: tuple[str, ...] = MOLT_LOSSES) -> list[dict[str, float]]:
    """What each step logged."""
    with (folder / "metrics.csv").open() as file:
        return [{name: float(row[name]) for name in names} for row in csv.DictReader(file) if row[names[0]]]


def test_two_processes_equal_one(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """Losses step by step, with an uneven last batch and rows that only fill up, and metrics, to 1e-6.

    In float64, since training blows up the last digit, in which sums in another order differ, a thousandfold in a few
    steps: there are 8 samples a step, and the slope of a square root.
    """
    found, metrics = {}, {}
    for name, flags in (("one", [*ONE, "--data.batch_size=10"]), ("two", [*TWO, "--data.batch_size=5"])):
        # 77 training samples: the last step has 7, so one of two ranks has a row that does not count.
        fit = [*tiny_flags(food101, text_folder), "--trainer.log_every_n_steps=1", *flags]
        fit += ["--data.splits.val_fraction=0.2", "--trainer.max_epochs=2", "--trainer.precision=64-true"]
        fit += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1", "--model.fusion.dropout=0"]
        run("fit", f"--config={CONFIGS}/food101.yaml", *fit, f"--name={name}", f"--run_root={tmp_path}")
        found[name] = losses(tmp_path / name / "0")
        metrics[name] = conditions(tmp_path / name / "0")
    assert len(found["one"]) == 16
    assert sum(step["train/correlation_loss"] < 0 for step in found["one"]) > 12  # it is 0 where there are no pairs
    worst = 0.0
    for one, two in zip(found["one"], found["two"], strict=True):
        assert two == pytest.approx(one, rel=1e-6)
        worst = max(worst, *(abs(two[key] / one[key] - 1) for key in one if one[key]))
    print(f"largest relative difference of a logged loss in {len(found['one'])} steps: {worst:.1e}")
    assert_same(metrics["two"], metrics["one"], rel=1e-6)


def test_two_processes_update_the_encoders_as_one(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """Also in steps in which a process has no image, or no text; the text encoder's features are cached."""
    found, metrics = {}, {}
    for name, flags in (("one", [*ONE, "--data.batch_size=4"]), ("two", [*TWO, "--data.batch_size=2"])):
        fit = [*tiny_flags(food101, text_folder), "--trainer.log_every_n_steps=1", *flags]
        fit += ["--image_encoder.lora.rank=4", "--data.training.modality_dropout.image_dropout=0.5"]
        fit += [f"--data.cache.folder={tmp_path}/{name} cache"]
        fit += ["--data.splits.val_fraction=0.2", "--trainer.precision=64-true", "--data.cache.dtype=float32"]
        fit += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1", "--model.fusion.dropout=0"]
        run_command("fit", f"--config={CONFIGS}/food101.yaml", *fit, f"--name={name}", f"--run_root={tmp_path}")
        found[name] = losses(tmp_path / name / "0")
        metrics[name] = conditions(tmp_path / name / "0")
    assert len(found["one"]) == 20
    for one, two in zip(found["one"], found["two"], strict=True):
        assert two == pytest.approx(one, rel=1e-6)
    assert_same(metrics["two"], metrics["one"], rel=1e-6)


@pytest.mark.exhaustive
def test_two_processes_of_mmrl_equal_one(food101: Path, clip_folder: Path, tmp_path: Path) -> None:
    """Also in steps in which a process has no image, or no text, and so no use for some of the parameters.

    And where samples lack modalities by protocol, and have noise: both are theirs, whatever process has them.
    """
    found, metrics = {}, {}
    damage = ["--data.missing.train.rate=0.3", "--data.missing.val.rate=0.5", "--data.noise.train.image.kinds=[shot]"]
    damage += ["--data.noise.val.text.kinds=[typos,other_text]", "--data.noise.val.image.kinds=[blur]"]
    for name, flags in (("one", [*ONE, "--data.batch_size=4"]), ("two", [*TWO, "--data.batch_size=2"])):
        fit = [*mmrl_flags(food101, clip_folder), "--trainer.log_every_n_steps=1", *damage, *flags]
        fit += [
            "--data.training.modality_dropout.image_dropout=0.5",
            "--data.training.modality_dropout.text_dropout=0.4",
        ]
        fit += ["--data.splits.val_fraction=0.2", "--trainer.precision=64-true", "--model.optimizer=torch.optim.SGD"]
        run_command("fit", f"--config={CONFIGS}/food101_mmrl.yaml", *fit, f"--name={name}", f"--run_root={tmp_path}")
        found[name] = losses(tmp_path / name / "0", MMRL_LOSSES)
        metrics[name] = conditions(tmp_path / name / "0")
    assert len(found["one"]) == 20
    for one, two in zip(found["one"], found["two"], strict=True):
        assert two == pytest.approx(one, rel=1e-9)
    assert_same(metrics["two"], metrics["one"], rel=1e-9)


@pytest.mark.parametrize("method", ["dcp", "dpl"])
def test_two_processes_of_a_method_on_clip_equal_one(
    method: str, food101: Path, clip_folder: Path, tmp_path: Path
) -> None:
    """Also in steps in which a process has no image, or no text."""
    found, metrics = {}, {}
    configs = [f"--config={CONFIGS}/{name}.yaml" for name in ("food101", f"methods/{method}", "missing/both_70")]
    for name, flags in (("one", [*ONE, "--data.batch_size=4"]), ("two", [*TWO, "--data.batch_size=2"])):
        fit = [*method_flags(food101, clip_folder, method), "--trainer.log_every_n_steps=1", *flags]
        fit += ["--data.cache.folder=null", "--data.splits.val_fraction=0.2", "--trainer.precision=64-true"]
        fit += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1", "--trainer.accumulate_grad_batches=1"]
        run_command("fit", *configs, *fit, f"--name={name}", f"--run_root={tmp_path}")
        names = ("train/loss", "train/contrastive_loss")[: 1 if method == "dcp" else 2]
        found[name] = losses(tmp_path / name / "0", names)
        metrics[name] = conditions(tmp_path / name / "0")
    assert len(found["one"]) == 20
    for one, two in zip(found["one"], found["two"], strict=True):
        assert two == pytest.approx(one, rel=1e-9)
    assert_same(metrics["two"], metrics["one"], rel=1e-9)


@pytest.mark.exhaustive
@pytest.mark.parametrize("subset", [9, 5, 1])
def test_ranks_that_have_less_or_nothing(food101: Path, text_folder: Path, tmp_path: Path, subset: int) -> None:
    """A rank whose last batch only fills up, or that has no sample at all: no hang, no NaN, the same metrics."""
    flags = [*tiny_flags(food101, text_folder), f"--data.splits.subset={subset}", "--data.batch_size=4", *TWO]
    flags += ["--trainer.precision=64-true", "--trainer.log_every_n_steps=1", f"--run_root={tmp_path}"]
    run_command("fit", f"--config={CONFIGS}/food101.yaml", *flags)
    folder = tmp_path / "food101/0"
    assert all(value == value for step in losses(folder) for value in step.values())
    two = conditions(folder)
    assert_same(two, conditions(folder, *ONE, "--data.batch_size=3"), rel=1e-5)


def test_multilabel_with_an_empty_rank(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    rows = [{"text": f"soup {i}", "label": ["a", "b"][i % 2 :]} for i in range(6)]
    table = write_table(tmp_path, "train", rows)
    few = write_table(tmp_path, "few", rows[:1])
    flags = [flag for flag in tiny_flags(food101, text_folder) if "source.root" not in flag]
    flags += [f"--data.source.{name}={path}" for name, path in {"train": table, "val": few, "test": few}.items()]
    flags += ["--data.source.image_column=null", "--data.source.multilabel=true", *TWO, f"--run_root={tmp_path}"]
    run_command("fit", f"--config={CONFIGS}/table.yaml", *flags)
    assert_same(conditions(tmp_path / "table/0"), conditions(tmp_path / "table/0", *ONE), rel=1e-5)


def test_two_processes_fill_and_read_one_cache(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """Losses and metrics are those of one process with a cache of its own; what one process wrote, another reads."""
    found, metrics = {}, {}
    for name, flags in (("one", [*ONE, "--data.batch_size=10"]), ("two", [*TWO, "--data.batch_size=5"])):
        fit = [*tiny_flags(food101, text_folder), "--trainer.log_every_n_steps=1", *flags]
        fit += [f"--data.cache.folder={tmp_path}/cache of {name}", "--data.cache.dtype=float32"]
        fit += ["--data.splits.val_fraction=0.2", "--trainer.max_epochs=2", "--trainer.precision=64-true"]
        fit += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1", "--model.fusion.dropout=0"]
        run_command("fit", f"--config={CONFIGS}/food101.yaml", *fit, f"--name={name}", f"--run_root={tmp_path}")
        found[name] = losses(tmp_path / name / "0")
        metrics[name] = conditions(tmp_path / name / "0")
    for one, two in zip(found["one"], found["two"], strict=True):
        assert two == pytest.approx(one, rel=1e-6)
    assert_same(metrics["two"], metrics["one"], rel=1e-6)
    shards = sorted((tmp_path / "cache of two").rglob("*.safetensors"))
    assert len(shards) >= 8  # of two stages, of images and of texts, from each rank
    assert_same(conditions(tmp_path / "two/0", *ONE), metrics["one"], rel=1e-6)
    assert sorted((tmp_path / "cache of two").rglob("*.safetensors")) == shards


def spoiled(food101: Path, tmp_path: Path) -> Path:
    """The data with two images that cannot be read."""
    root = shutil.copytree(food101, tmp_path / "food101")
    for number in (1, 2):
        (root / f"images/train/pho/pho_{number}.jpg").write_bytes(b"no image")
    return root


CACHE = "--data.cache.folder={tmp_path}/cache"
MISTAKES: dict[str, tuple[list[str], str]] = {
    "unreadable images": (
        [],
        "2 of 96 image files cannot be read: .*pho_1.jpg .*; .*pho_2.jpg .*: repair or remove",
    ),
    "unreadable images that are to be cached": (
        [CACHE],
        "2 of 96 image files cannot be read: .*pho_1.jpg .*; .*pho_2.jpg .*: repair or remove",
    ),
    "a cache that cannot be written": (
        ["--data.cache.folder={tmp_path}/food101/texts/train_titles.csv", "--data.unreadable=absent"],
        r"the feature cache .*train_titles.csv cannot be written \(.*\), and its features are kept",
    ),
    "a loss that is not finite": (
        ["--model.optimizer.lr=1e30", "--data.unreadable=absent", "--model.schedule.warmup=0"],
        "the loss of step 1 in epoch 0 is not finite, because of all its 16 samples, .*: lower model.optimizer.lr",
    ),
}


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(mistake, marks=pytest.mark.exhaustive) if "not finite" not in mistake else mistake
        for mistake in MISTAKES
    ],
)
def test_all_ranks_stop_with_one_sentence(mistake: str, food101: Path, text_folder: Path, tmp_path: Path) -> None:
    flags, message = MISTAKES[mistake]
    fit = [
        *tiny_flags(spoiled(food101, tmp_path), text_folder),
        "--data.batch_size=8",
        "--data.splits.val_fraction=0.5",
        *TWO,
    ]
    fit += [
        "--data.training.modality_dropout.image_dropout=0",
        "--data.loader.workers=1",
        f"--run_root={tmp_path}/runs",
    ]
    flags = [flag.format(tmp_path=tmp_path) for flag in flags]
    err = run("fit", f"--config={CONFIGS}/food101.yaml", *fit, *flags, status=1)
    assert "Traceback" not in err
    assert re.fullmatch(f"robusttune: error: {message}.*", err.strip().splitlines()[-1])
    assert err.count("robusttune: error") == 1


@pytest.mark.exhaustive
def test_what_was_put_up_with_is_counted_over_ranks(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    fit = [*tiny_flags(spoiled(food101, tmp_path), text_folder), "--data.unreadable=absent", "--data.batch_size=8"]
    fit += [
        "--data.training.modality_dropout.image_dropout=0",
        "--data.training.modality_dropout.text_dropout=0",
        "--text_encoder.max_length=3",
    ]
    fit += [
        "--data.splits.val_fraction=0.5",
        "--data.loader.workers=1",
        "--trainer.max_epochs=2",
        f"--run_root={tmp_path}",
        *TWO,
    ]
    err = run_command("fit", f"--config={CONFIGS}/food101.yaml", *fit)
    counted = re.findall(r"(\w+): (\d+) (image files? unreadable|texts? cut)", err)
    assert ("train", "2", "image files unreadable") in counted
    assert len(counted) == len(set(counted)) == 3  # no line of the second rank's
    texts = {split: int(count) for split, count, what in counted if what.startswith("texts")}
    with_text = {split: int(count) for split, count in re.findall(r"(\w+): \d+ samples, \d+ with image, (\d+)", err)}
    assert texts == with_text


@pytest.mark.exhaustive
def test_two_processes_take_clip_as_it_is(food101: Path, clip_folder: Path, tmp_path: Path) -> None:
    """Where nothing is trained, there is nothing to reduce."""
    flags = [flag for flag in mmrl_flags(food101, clip_folder) if not flag.startswith("--model.adapter.")]
    configs = [f"--config={CONFIGS}/food101_mmrl.yaml", f"--config={CONFIGS}/baselines/zero_shot.yaml"]
    run_command("fit", *configs, *flags, *TWO, f"--run_root={tmp_path}")
    folder = tmp_path / "zero_shot/0"
    assert_same(conditions(folder, *TWO), conditions(folder, *ONE), rel=1e-5)


@pytest.mark.exhaustive
def test_two_processes_balance_as_one(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """The losses of each step are the same with balanced sampling, and with class weights and the focal loss."""
    for kind, balance in {
        "sampling": ["--data.training.balance=balanced"],
        "weights": ["--model.balance.weights=inverse", "--model.balance.focal=1"],
    }.items():
        found = {}
        for name, flags in (("one", [*ONE, "--data.batch_size=10"]), ("two", [*TWO, "--data.batch_size=5"])):
            # 77 training samples of classes of different sizes, so one of two ranks has a row that does not count.
            fit = [*tiny_flags(food101, text_folder), "--trainer.log_every_n_steps=1", *flags, *balance]
            fit += ["--data.splits.val_fraction=0.2", "--trainer.precision=64-true", "--model.fusion.dropout=0"]
            fit += ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1"]
            fit += [f"--name={kind}_{name}", f"--run_root={tmp_path}"]
            run_command("fit", f"--config={CONFIGS}/food101.yaml", *fit)
            found[name] = losses(tmp_path / f"{kind}_{name}" / "0")
        assert len(found["one"]) == 8
        for one, two in zip(found["one"], found["two"], strict=True):
            assert two == pytest.approx(one, rel=1e-6)


@pytest.mark.exhaustive
def test_two_processes_fit_the_same_logistic_regressions(food101: Path, text_folder: Path, tmp_path: Path) -> None:
    """From samples that both of them have encoded."""
    found = {}
    flags = [flag for flag in tiny_flags(food101, text_folder) if not flag.startswith("--model.fusion.")]
    flags += ["--data.splits.val_fraction=0.2", "--trainer.precision=64-true", f"--run_root={tmp_path}"]
    for name, ranks in (("one", ONE), ("two", TWO)):
        configs = [f"--config={CONFIGS}/{config}.yaml" for config in ("food101", "fusion/linear")]
        said = run_command("fit", *configs, *flags, *ranks, f"--name={name}")
        assert said.count("logistic regression on image and text: ") == 1
        found[name] = conditions(tmp_path / name / "0")
    assert_same(found["two"], found["one"], rel=1e-4)
    assert_same(conditions(tmp_path / "two/0", *ONE), found["one"], rel=1e-4)
