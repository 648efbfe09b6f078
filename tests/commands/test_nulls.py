"""Null for any setting: it is taken for nothing, or refused in one sentence that names the setting."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import tiny_flags, write_table

from robusttune.cli import main
from robusttune.corruption.dropout import ModalityDropout
from robusttune.data.splits import Splits
from robusttune.models import MoLT
from robusttune.tasks.schedule import Schedule

CONFIGS = Path(__file__).parents[2] / "configs"
DEFAULTS = {  # groups of which null is the default
    *("data.missing", "data.noise", "data.noise.train", "data.noise.val", "data.noise.test", "data.loader"),
    *("data.training", "data.training.modality_dropout", "data.evaluation", "data.cache", "data.splits"),
    "data.source.init_args.remote",
    *("model.init_args.schedule", "model.init_args.optimizer", "model.init_args.fusion", "model.init_args.balance"),
    "trainer",
}
# Of which null is another setting: any accelerator, ...
OTHER = {
    *("seed_everything", "data.loader.workers", "image_encoder.init_args.size", "data.source.init_args.text_column"),
    *("data.source.init_args.train", "trainer.logger", "trainer.max_epochs", "trainer.precision"),
    *("trainer.check_val_every_n_epoch", "trainer.log_every_n_steps", "trainer.enable_progress_bar"),
    *("trainer.enable_model_summary", "trainer.gradient_clip_val"),
}


@pytest.fixture
def flags(tmp_path: Path, text_folder: Path) -> list[str]:
    rows = [{"text": "soup", "label": "ab"[i % 2]} for i in range(20)]
    tiny = [flag for flag in tiny_flags(Path("none"), text_folder) if "source.root" not in flag]
    source = ["--data.source.image_column=null", f"--data.source.train={write_table(tmp_path, 'train', rows)}"]
    return [f"--config={CONFIGS}/table.yaml", *tiny, *source, f"--run_root={tmp_path}/runs", "--trainer.fast_dev_run=1"]


def settings(flags: list[str], capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """All settings of a fit, by their names with dots."""
    with pytest.raises(SystemExit):
        main(["fit", *flags, "--print_config"])
    return dict(named(yaml.safe_load(capfd.readouterr().out)))


def named(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from named(value, f"{prefix}{key}.")


def with_null(name: str, folder: Path) -> str:
    value: Any = None
    for part in reversed(name.split(".")):
        value = {part: value}
    (folder / "null.yaml").write_text(json.dumps(value))
    return f"--config={folder}/null.yaml"


def refused(name: str, flags: list[str], folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["fit", *flags, with_null(name, folder)]) == 1, name
    error = capfd.readouterr().err.strip().splitlines()[-1]
    shown = name.replace(".init_args.", ".")  # an .init_args at the end is said
    shown = {"data": "data.source"}.get(shown, shown)  # which is what cannot be left out
    assert re.match(
        f"robusttune: error: {shown} is null(: leave it out, or give |, or not given: |: correct )", error
    ), error


def test_groups(flags: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    groups = [name for name, value in settings(flags, capfd).items() if isinstance(value, dict)]
    assert {
        "trainer",
        "model",
        "data",
        "data.training.modality_dropout",
        "model.init_args.optimizer.init_args",
    } | DEFAULTS <= {*groups}
    for name in groups:
        if name not in DEFAULTS:
            refused(name, flags, tmp_path, capfd)


@pytest.mark.exhaustive
def test_single_settings(flags: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = [
        name for name, value in settings(flags, capfd).items() if not isinstance(value, dict) and value is not None
    ]
    assert len(given) > 80
    for name in given:
        if name in OTHER:
            main(["fit", *flags, with_null(name, tmp_path)])  # no exception
        else:
            refused(name, flags, tmp_path, capfd)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("trainer.strategy", "a value"),
        ("data.training.modality_dropout.image_dropout", "a number"),
        ("data.splits.classes", "one of all, base, new"),
        ("data.batch_size", "a whole number"),
        ("model.schedule.name", "one of cosine, linear, constant_with_warmup"),
        ("run_root", "text"),
    ],
)
def test_what_to_give_instead(
    name: str, remedy: str, flags: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nested = name.replace("model.", "model.init_args.")
    assert main(["fit", *flags, with_null(nested, tmp_path)]) == 1
    assert capfd.readouterr().err.endswith(f"robusttune: error: {name} is null: leave it out, or give {remedy}\n")
    if name not in ("run_root", "trainer.strategy"):  # which may be called null
        assert main(["fit", *flags, f"--{name}=null"]) == 1
        assert f"robusttune: error: {name} is null" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flag", "kept"),
    [
        ("model.schedule.warmup_rate", ("model.init_args.schedule.name", "cosine")),
        ("model.init_args.optimizer.foreach", ("model.init_args.optimizer.class_path", "torch.optim.AdamW")),
        ("data.source.text_column", ("data.source.init_args.label_column", "label")),
        ("data.noise.train.image", ("data.noise.train.text", None)),
    ],
)
@pytest.mark.parametrize("form", ["={}", " {}"])
def test_null_in_a_flag_is_null_at_any_depth(
    flag: str, kept: tuple[str, Any], form: str, flags: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    given = f"--{flag}{form.format('null')}".split(" ")
    found = settings([*flags, *given], capfd)
    name = next(name for name in found if name.replace(".init_args", "") == flag.replace(".init_args", ""))
    assert found[name] is None
    assert found[kept[0]] == kept[1]


def test_null_for_the_name_of_a_split(capfd: pytest.CaptureFixture[str]) -> None:
    """Of a group inside a class inside a group, whose other settings stay."""
    given = [f"--config={CONFIGS}/hugging_face.yaml", "--data.source.split_names.train=own"]
    found = settings([*given, "--data.source.split_names.val=null", "--recipe=null"], capfd)
    names = {name.rpartition(".")[2]: value for name, value in found.items() if ".split_names." in name}
    assert names == {"train": "own", "val": None, "test": "test", "predict": None}


@pytest.mark.slow
@pytest.mark.parametrize("noise", [None, {"train": None, "val": None, "test": None}])
def test_groups_that_are_null_come_back_from_the_run(flags: list[str], tmp_path: Path, noise: Any) -> None:
    """With their defaults, as if they were left out."""
    groups = ("missing", "training", "splits", "loader", "cache", "evaluation")
    null = {
        "trainer": None,
        "data": {"noise": noise, **dict.fromkeys(groups)},
        "model": {"init_args": dict.fromkeys(("schedule", "optimizer", "fusion"))},
    }
    (tmp_path / "null.yaml").write_text(json.dumps(null))
    kept = [flag for flag in flags if not flag.startswith(("--trainer", "--model", "--data.splits", "--data.training"))]
    given = [*kept, f"--config={tmp_path}/null.yaml"]
    assert main(["fit", *given, "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.loader.workers=0"]) == 0
    run = tmp_path / "runs/table/0"
    found = dict(named(yaml.safe_load((run / "config.yaml").read_text())))
    assert found["data.training.modality_dropout.image_dropout"] == ModalityDropout().image_dropout
    assert found["data.splits.val_fraction"] == Splits().val_fraction
    assert found["data.noise.train"] == {"image": None, "text": None}
    assert found["model.init_args.schedule.warmup"] == Schedule().warmup
    assert found["model.init_args.optimizer"].endswith(".adamw")
    assert found["model.init_args.fusion.class_path"].endswith("MoLT")
    assert found["model.init_args.fusion.init_args.cca_dim"] == MoLT().cca_dim
    checkpoint = f"--ckpt_path={run}/checkpoints/best.ckpt"
    assert main(["validate", f"--config={run}/config.yaml", checkpoint]) == 0
    assert main(["data", "verify", f"--config={run}/config.yaml"]) in (0, 1)
    assert main(["plan", f"--config={run}/config.yaml", "--steps=null"]) == 1


def test_commands_of_data(flags: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    only = [flag for flag in flags if not flag.startswith(("--model", "--trainer"))]
    for command, name in {"verify": "data.batch_size", "show": "data.seed"}.items():
        assert main(["data", command, *only, with_null(name, tmp_path)]) == 1
        assert f"robusttune: error: {name} is null: leave it out" in capfd.readouterr().err
    assert main(["data", "show", *only, f"--out={tmp_path}/a.png", with_null("data.splits", tmp_path)]) == 0
    assert main(["data", "show", *only, "--samples=null"]) == 1
    assert "robusttune: error: samples is null" in capfd.readouterr().err
