"""`recipe: auto` in commands: values of the user win, and the run is an ordinary one."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import tiny_flags, write_table

from robusttune import interruption
from robusttune.cli import main
from robusttune.commands.resolved import Resolver

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = ["soup", "cake", "pie"]


def write_rows(folder: Path, split: str, number: int) -> Path:
    names = [CLASSES[row % 3] for row in range(number)]
    return write_table(folder, split, [{"text": f"{row} {name}", "label": name} for row, name in enumerate(names)])


@pytest.fixture
def table(text_folder: Path, tmp_path: Path) -> list[str]:
    """Return the flags of a small table, without any setting that a recipe chooses."""
    chosen = ("--model.fusion.", "--data.batch_size", "--trainer.max_epochs")
    tiny = [flag for flag in tiny_flags(tmp_path, text_folder) if not flag.startswith(chosen)]
    splits = {"train": 36, "test": 9}
    source = [f"--data.source.{split}={write_rows(tmp_path, split, number)}" for split, number in splits.items()]
    source.append("--data.source.image_column=null")  # a third of the time
    run = [
        "--trainer.precision=32-true",
        "--data.cache.dtype=float32",
        "--data.splits.val_fraction=0.2",
        f"--run_root={tmp_path}/runs",
    ]
    return [f"--config={CONFIGS}/table.yaml", *tiny, *source, *run]


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    """Return the settings that a fit would have."""
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *args, "--print_config"])
    assert stopped.value.code in (0, None)
    settings: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return settings


def settings_of(run: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return settings


def recipes(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [message for message in caplog.messages if message.startswith("recipe: ")]
    caplog.clear()
    return found


def test_a_small_table_is_fitted_at_once_and_the_run_is_an_ordinary_one(
    table: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert main(["fit", *table]) == 0
    [line] = recipes(caplog)
    assert line.startswith("recipe: 29 training rows, 3 classes: stacking of logistic")
    assert "fitted at once" in line
    assert "as given" not in line
    run = tmp_path / "runs/table/0"
    settings = settings_of(run)
    assert settings["recipe"] is None
    assert settings["model"]["init_args"]["fusion"]["class_path"] == "robusttune.models.Stacking"
    assert settings["model"]["init_args"]["calibrate"] is True
    assert (settings["trainer"]["max_epochs"], settings["data"]["cache"]["folder"]) == (1, "auto")
    # A test finds the model in the run, or in the checkpoint if it has the configuration of the fit.
    assert main(["test", f"--ckpt_path={run}"]) == 0
    others = [flag for flag in table if not flag.startswith("--data.source.train")]
    without = [*others, "--data.source.train=null", "--data.cache.folder=auto", f"--ckpt_path={run}"]
    assert main(["test", *without, "--report=again"]) == 0
    first, second = (json.loads((run / f"report/{name}.json").read_text()) for name in ("test", "again"))
    assert first["conditions"] == second["conditions"]
    no_image = "--data.source.image_column=null"
    rows = [f"--input={tmp_path}/test.jsonl", no_image, f"--out={tmp_path}/out"]
    assert main(["predict", f"--ckpt_path={run}", *rows]) == 0
    assert not recipes(caplog), "only a fit chooses"
    assert main(["fit", *table, "--resume=auto"]) == 0
    assert f"{run} is finished" in caplog.text
    assert not (tmp_path / "runs/table/1").exists(), "the same data give the same settings"


@pytest.mark.slow
def test_an_interrupted_fit_is_resumed_on_the_same_data_alone(
    table: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    trained = [*table, f"--config={CONFIGS}/fusion/experts.yaml", "--name=table", "--model.fusion.width=8"]
    trained += ["--trainer.max_epochs=2", "--resume=auto", "--trainer.callbacks+=interrupting.SignalAt"]
    with monkeypatch.context() as patch:
        patch.setenv("SIGNAL", "SIGTERM")
        patch.setenv("AT_STEP", "1")
        assert main(["fit", *trained]) == 1
    interruption.clear_signal()
    run = tmp_path / "runs/table/0"
    assert settings_of(run)["recipe"] is None
    assert not (run / "finished.json").exists()
    write_rows(tmp_path, "train", 90)
    assert main(["fit", *trained]) == 0
    assert f"{run} is unfinished, and has trainer.log_every_n_steps 1, not 2" in caplog.text
    write_rows(tmp_path, "train", 36)
    assert main(["fit", *trained]) == 0
    assert (run / "finished.json").exists()
    assert not (tmp_path / "runs/table/2").exists()


def test_values_of_the_user_win_wherever_they_stand(
    table: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("data: {batch_size: 7}\nmodel: {init_args: {calibrate: false}}\n")
    settings = printed(capsys, *table, f"--config={overlay}", "--trainer.max_epochs=3", "--data.cache.folder=null")
    assert settings["data"]["batch_size"] == 7
    assert settings["data"]["cache"]["folder"] is None
    assert settings["model"]["init_args"]["calibrate"] is False
    assert settings["trainer"]["max_epochs"] == 3
    assert settings["model"]["init_args"]["fusion"]["class_path"] == "robusttune.models.Stacking"
    [line] = recipes(caplog)
    assert line.endswith("; as given: data.batch_size, data.cache.folder, model.calibrate, trainer.max_epochs")


def test_a_network_of_the_user_is_trained_for_steps(
    table: list[str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = printed(capsys, *table, f"--config={CONFIGS}/fusion/molt.yaml")
    model, trainer = settings["model"]["init_args"], settings["trainer"]
    assert (model["fusion"]["class_path"], model["beta"]) == ("robusttune.models.MoLT", 0.1)
    assert (trainer["max_epochs"], trainer["check_val_every_n_epoch"]) == (1500, 75)
    assert trainer["limit_train_batches"] is None
    assert settings["data"]["training"]["modality_dropout"] == {"image_dropout": 0.3, "text_dropout": 0.3}
    assert recipes(caplog) == [
        "recipe: 29 training rows, 3 classes: MoLT, 1,500 steps in 1,500 epochs of 1 batch of 64, from features that "
        "are computed once"
    ]
    flags = printed(capsys, *table, "--model.fusion.common_width=32")["model"]["init_args"]
    assert flags["fusion"] == model["fusion"] | {"init_args": model["fusion"]["init_args"] | {"common_width": 32}}
    baseline = printed(capsys, *table, f"--config={CONFIGS}/baselines/late_fusion.yaml")
    assert baseline["model"]["init_args"]["fusion"]["class_path"] == "robusttune.models.LateFusion"
    assert baseline["trainer"]["max_epochs"] == 1500


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--model.balance.weights=inverse"], id="weights"),
        pytest.param(["--data.training.balance=balanced"], id="sampling"),
        pytest.param(["--model.optimizer.lr=0.01"], id="optimizer"),
        pytest.param(["--text_encoder.lora={rank: 2}"], id="updates of an encoder"),
    ],
)
def test_what_needs_steps_is_not_fitted_at_once(
    flags: list[str], table: list[str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = printed(capsys, *table, *flags)["model"]["init_args"]
    assert settings["fusion"]["class_path"] == "robusttune.models.Experts"
    assert (settings["every_pattern"], settings["beta"], settings["label_smoothing"]) == (True, 0.0, 0.2)
    [line] = recipes(caplog)
    name = flags[0].partition("=")[0].removeprefix("--")
    assert re.search(rf"\(since {name.removesuffix('.lr')} is set\)", line)
    optimizer = settings["optimizer"]["init_args"]
    assert (optimizer["lr"], optimizer["weight_decay"]) == (0.01 if name.endswith("lr") else 0.001, 0.05)


def test_experts_have_the_settings_of_their_overlay(table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    chosen = printed(capsys, *table, "--model.schedule.name=linear")
    overlay = printed(capsys, *table, "--model.schedule.name=linear", f"--config={CONFIGS}/fusion/experts.yaml")
    assert chosen == overlay | {"name": "table"}


def test_noisy_inputs_are_not_cached(table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    settings = printed(capsys, *table, "--data.noise.train.text={kinds: [deletion]}")
    assert settings["data"]["cache"]["folder"] is None
    assert settings["model"]["init_args"]["fusion"]["class_path"] == "robusttune.models.Experts"


def test_modality_dropout_of_the_user_replaces_every_pattern(
    table: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    dropout = ["--data.training.modality_dropout={image_dropout: 0.5, text_dropout: 0.1}"]
    settings = printed(capsys, *table, "--model.schedule.name=linear", *dropout)
    assert settings["data"]["training"]["modality_dropout"] == {"image_dropout": 0.5, "text_dropout": 0.1}
    assert settings["model"]["init_args"]["every_pattern"] is False


def test_mistakes_are_the_sentences_of_any_configuration(
    table: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*flags: str) -> str:
        assert main(["fit", *table, *flags]) == 1
        found = capsys.readouterr().err
        assert found.count("\n") == 1
        return found

    assert "recipe is 'atuo', not one of 'auto'" in error("--recipe=atuo")
    assert "gone.jsonl does not exist" in error(f"--data.source.train={tmp_path}/gone.jsonl")
    assert error("--data.source.train=null") == error("--data.source.train=null", "--recipe=null")
    assert "data.seeed is no setting" in error("--data.seeed=1")
    assert "model.alhpa is no setting" in error("--model.alhpa=1")
    assert main(["fit", "--recipe=null", *table]) == 1
    assert "give --recipe behind it" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_what_is_wrong_with_rows_is_warned_of_once(
    table: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"text": "NaN", "label": "soup"}\n')
    assert main(["fit", *table, f"--config={CONFIGS}/fusion/experts.yaml", "--trainer.fast_dev_run=1"]) == 0
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == len({*warned})
    assert any("NaN" in message for message in warned)


@pytest.mark.slow
def test_plan_measures_what_the_recipe_chooses(table: list[str], tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    assert main(["plan", *table, "--steps=1", f"--json={out}"]) == 0
    assert json.loads(out.read_text())


def test_other_tasks_are_left_alone(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.INFO)
    demo = f"--config={CONFIGS}/demo_mmrl.yaml"
    assert printed(capsys, demo, "--recipe=auto") == printed(capsys, demo)
    assert recipes(caplog) == ["recipe: auto chooses settings of FusionTask, and none of MMRLTask"]


def test_settings_are_identified_without_the_data() -> None:
    """A default that is given is not what the recipe may choose, so the two are different runs."""
    resolve = Resolver()
    plain, molt = (resolve("fit", [f"--config={CONFIGS}/{name}" for name in names]) for names in NAMES)
    assert plain["recipe"] != molt["recipe"]
    assert "model.beta" in molt["recipe"]["auto"]
    assert plain["model"] == molt["model"]
    tuned = resolve("fit", [f"--config={CONFIGS}/table.yaml", "--model.optimizer.lr=0.5"])["model"]["init_args"]
    assert tuned["optimizer"]["init_args"]["lr"] == 0.5


NAMES = (["table.yaml"], ["table.yaml", "fusion/molt.yaml"])
